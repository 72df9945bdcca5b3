//! A server that corrects what arrives: the correction goes back to everybody.

mod common;

use antiphon::store::{Value, WriteError};
use antiphon_synchronizer::{By, Options};
use common::*;
use std::sync::{Arc, Mutex};

#[test]
fn tb_b_mutator_mutation_and_deletion() {
    let (server, clients) = (node(), [node(), node()]);
    let (served, synchronizer) = synchronized(&server, authority());
    // Nobody has more than four legs, and nothing is called a dragon.
    let corrector = served.correct(|changes, transaction| {
        for change in &changes.cells {
            match (&*change.cell, &change.new) {
                ("legs", Some(Value::Int(legs))) if *legs > 4 => {
                    transaction.set_cell(&change.table, &change.row, "legs", 4)?;
                }
                ("dragon", Some(_)) => transaction.delete_cell(&change.table, &change.row, "dragon")?,
                _ => {}
            }
        }
        Ok(())
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    served.listen(antiphon::store::Pattern::Everything, {
        let told = told.clone();
        move |it| told.lock().unwrap().push((it.by == By::Us, it.changes.cells.len()))
    });
    wait(synchronizer.start()).unwrap();
    let stores = clients.each_ref().map(|client| {
        link(client, &server);
        let (store, synchronizer) = synchronized(client, Options::default());
        wait(synchronizer.start()).unwrap();
        (store, synchronizer)
    });
    let [(fido, first), (felix, second)] = &stores;
    set(fido, "fido", "legs", 5);
    set(felix, "felix", "dragon", 1);
    let all = r#"{"tables":{"pets":{"fido":{"legs":4}}},"values":{}}"#;
    for (store, synchronizer) in [(fido, first), (felix, second), (&served, &synchronizer)] {
        wait(synchronizer.reaches(|_| content(store) == all)).unwrap();
    }
    let told = told.lock().unwrap().clone();
    assert_eq!(told.iter().filter(|(is_ours, _)| *is_ours).count(), 2, "each correction was told: {told:?}");
    // What the server writes itself is its own affair, and what it no longer corrects stays.
    set(&served, "spider", "legs", 8);
    served.uncorrect(corrector);
    set(fido, "centipede", "legs", 100);
    wait(second.reaches(|_| felix.read(|store| store.cell("pets", "centipede", "legs") == Some(&Value::Int(100)))))
        .unwrap();
    wait(first.reaches(|_| fido.read(|store| store.cell("pets", "spider", "legs") == Some(&Value::Int(8))))).unwrap();
}

#[test]
fn what_was_there_before_the_server_looked_is_corrected_too_and_a_correction_that_fails_writes_nothing() {
    let (server, client) = (node(), node());
    let (fido, first) = synchronized(&client, Options::default());
    set(&fido, "fido", "legs", 5);
    let (served, synchronizer) = synchronized(&server, authority());
    served.correct(|_, transaction| {
        transaction.set_value("half", true)?;
        transaction.set_value(&"x".repeat(1 << 20), true)
    });
    served.correct(|changes, transaction| transaction.set_value("seen", changes.cells.len() as i64));
    wait(synchronizer.start()).unwrap();
    link(&client, &server);
    wait(first.start()).unwrap();
    let all = r#"{"tables":{"pets":{"fido":{"legs":5}}},"values":{"seen":1}}"#;
    wait(first.reaches(|_| content(&fido) == all)).unwrap();
}

#[test]
fn listeners_may_write_and_what_they_write_is_told_after() {
    let store = antiphon_synchronizer::SharedStore::default();
    let order = Arc::new(Mutex::new(Vec::new()));
    for listener in 0..2 {
        let (order, writes) = (order.clone(), store.clone());
        store.listen(antiphon::store::Pattern::values(None), move |it| {
            let Some(Value::Int(value)) = it.changes.values[0].new else { return };
            order.lock().unwrap().push((listener, value));
            if listener == 0 && value < 3 {
                writes.write::<_, WriteError>(|transaction| transaction.set_value("n", value + 1)).unwrap();
            }
        });
    }
    store.write::<_, WriteError>(|transaction| transaction.set_value("n", 1)).unwrap();
    assert_eq!(*order.lock().unwrap(), [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)]);
}
