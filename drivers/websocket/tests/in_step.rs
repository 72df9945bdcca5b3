//! Nodes come in step over WebSockets.

mod common;

use antiphon::storage::Storage;
use common::*;

#[test]
fn two_writers_and_a_late_reader_come_in_step_over_a_server() {
    let server = plain();
    let writers = [memory(), memory()];
    let links = writers.each_ref().map(|writer| {
        let document = open(&writer.node);
        append(&writer.node, ["offline"]);
        let link = connect(&writer.node, &server.url());
        wait(link.acknowledged(&document)).expect("it reaches the server");
        append(&writer.node, ["online", "and more"]);
        link
    });
    links.iter().for_each(|link| wait(link.acknowledged(&document())).expect("it reaches the server"));

    let reader = memory();
    let document = open(&reader.node);
    let (heads, tail) = wait(connect(&reader.node, &server.url()).in_step(&document)).expect("it comes in step");
    assert_eq!((heads.len(), tail), (2, 6));

    let stored = server.stop(None).document(&document).expect("a storage in memory can be read");
    assert_eq!((stored.tail, stored.heads.digest()), (6, heads.digest()));
    for node in writers.into_iter().chain([reader]) {
        node.stop(None);
    }
}
