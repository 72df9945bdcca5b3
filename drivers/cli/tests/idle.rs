//! Thousands of connections that do nothing: a server process keeps them all, at little cost, beside one that works.
#![cfg(target_os = "linux")]

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};

use antiphon::codes::Code;
use async_io::block_on;
use common::light::{Light, Told, executor};
use common::measure::{raise_descriptors, resident};
use common::{PATIENCE, Replica, Scratch, Server, under_shell};

const IDLE: u64 = 5_000;
/// Descriptors for everything else in this process.
const OTHERS: u64 = 200;
/// Connections that are being made at a time.
const AT_A_TIME: u64 = 64;
/// Bytes that the server may take for each. The sockets' buffers are the system's, and not in it.
const BYTES_EACH_MAX: u64 = 32 << 10;

/// What the next of the clients tells.
fn next(told: &Receiver<Told>) -> Told {
    told.recv_timeout(PATIENCE).expect("they tell something in time")
}

#[test]
fn five_thousand_idle_connections_are_kept_beside_a_busy_one() {
    let idle = IDLE.min(raise_descriptors(IDLE + OTHERS) - OTHERS);
    if idle < IDLE {
        eprintln!("this system allows only {idle} connections instead of {IDLE}: a higher `ulimit -Hn` shows more");
    }
    let scratch = Scratch::new();
    let data = scratch.name("server");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", &data];
    // With as few descriptors as most systems give without being asked.
    let server = Server::spawn(under_shell("ulimit -S -n 1024", &serve));
    let pid = server.process.child.id();
    assert!(Replica::connect(&server.url, "notes").write("the first".into()));
    let (before, _) = resident(pid);

    let (clients, (tell, told)) = (executor(), channel());
    let connect = |number: u64, tell: Sender<Told>| {
        let url = server.url.clone();
        let stalls = Default::default();
        let client =
            async move { Light::connect(&url, number, None, stalls).await.run(|what| _ = tell.send(what)).await };
        clients.spawn(client).detach();
    };
    for number in 0..idle {
        if number >= AT_A_TIME {
            assert!(matches!(next(&told), Told::Live), "{number}");
        }
        connect(number, tell.clone());
    }
    (0..AT_A_TIME.min(idle)).for_each(|_| assert!(matches!(next(&told), Told::Live)));
    let (after, _) = resident(pid);
    let each = after.saturating_sub(before) / idle;
    eprintln!("{idle} idle connections: {each} bytes of the server each");
    assert!(each < BYTES_EACH_MAX, "{each} bytes for each of {idle} idle connections");

    let busy = Replica::connect(&server.url, "notes");
    for number in 0..100 {
        assert!(busy.write(format!("busy {number}")), "it is served");
    }
    block_on(busy.node.shutdown(None)).expect("in order");
    assert!(told.try_recv().is_err(), "nobody was lost");

    // They are all still there: each hears that the server goes, and when to come back.
    let ended = server.terminate();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for _ in 0..idle {
        let Told::Ended(Some(ending)) = next(&told) else { panic!("no goodbye") };
        assert_eq!((ending.code, ending.retry_after), (Code::SHUTDOWN, Some(1000)));
    }
}
