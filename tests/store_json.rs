//! JSON out and in is lossless, and what a cell holds as JSON has one form.

mod stores;

use antiphon::store::{BadValue, Json, Store, Value, WriteError};
use quickcheck::quickcheck;
use serde_json::{Value as Tree, json};
use stores::{Group, Step, WALL, apply, content, set, store};

fn import(json: &Tree) -> Result<Store, WriteError> {
    let mut store = store(1);
    let mut transaction = store.begin(WALL)?;
    transaction.import(json)?;
    let _ = transaction.commit()?;
    Ok(store)
}

quickcheck! {
    fn out_and_in_is_the_same(steps: Vec<Step>) -> bool {
        let mut first = store(9);
        apply(&mut first, &Group::run(false, &steps).all());
        // By way of text, as files have it.
        let text = first.to_json().to_string();
        let second = import(&serde_json::from_str(&text).unwrap()).unwrap();
        second.content_hash() == first.content_hash() && content(&second) == text
    }

    fn every_float_comes_back(bits: u64) -> bool {
        let float = f64::from_bits(bits);
        if !float.is_finite() {
            return true;
        }
        let nested = Json::parse(&format!("[{float:?}]")).unwrap();
        let text = Tree::from(&Value::Float(float + 0.0)).to_string();
        let tree: Tree = serde_json::from_str(&text).unwrap();
        let one: f64 = serde_json::from_str::<Vec<f64>>(nested.as_str()).unwrap()[0];
        Value::try_from(&tree) == Ok(Value::Float(float + 0.0)) && (float + 0.0).to_bits() == one.to_bits()
    }

    fn the_one_form_is_its_own_form(texts: Vec<String>, floats: Vec<f64>, ints: Vec<i64>) -> bool {
        let tree = json!({"texts": texts, "floats": floats, "ints": ints, "nested": [{"b": null, "a": [true]}]});
        let json = Json::try_from(&tree).unwrap();
        Json::parse(json.as_str()) == Ok(json.clone()) && Json::try_from(&Tree::from(&json)) == Ok(json)
    }
}

#[test]
fn equal_content_is_one_text() {
    let forms = [
        (" [ 1 , 2.50 , -0.0 , 1e2 ] ", "[1,2.5,0.0,100.0]"),
        ("{\"b\":1,\"a\":{\"d\":1,\"c\":2},\"b\":3}", "{\"a\":{\"c\":2,\"d\":1},\"b\":3}"),
        ("[\"\\u0041\\u00e9\\/\\u000a\\u0001\\\"\\\\\"]", "[\"Aé/\\n\\u0001\\\"\\\\\"]"),
        ("[9223372036854775807,-9223372036854775808]", "[9223372036854775807,-9223372036854775808]"),
        ("[18446744073709551615,1e21,1e-7,1.5E-9]", "[18446744073709552000.0,1e21,0.0000001,1.5e-9]"),
        ("{}", "{}"),
    ];
    for (text, form) in forms {
        assert_eq!(Json::parse(text).unwrap().as_str(), form);
        assert_eq!(Json::parse(form).unwrap().as_str(), form);
    }
}

#[test]
fn what_is_no_array_and_no_object_is_no_json_cell() {
    for text in ["1", "\"x\"", "null", "{\"$bytes\":\"00\"}", "{\"$bytes\":\"x\"}"] {
        assert_eq!(Json::parse(text), Err(BadValue::NotNested), "{text}");
    }
    for text in ["", "[", "[1]]", "[NaN]", "{a:1}", "[1e999]"] {
        assert_eq!(Json::parse(text), Err(BadValue::NotJson), "{text}");
    }
    assert!(Json::parse("[]").unwrap().is_array());
    assert!(!Json::parse("{\"$bytes\":\"x\",\"and\":1}").unwrap().is_array());
}

#[test]
fn bytes_have_a_form_of_their_own() {
    let bytes = Value::from(vec![0u8, 0xff, 0x10]);
    let tree = Tree::from(&bytes);
    assert_eq!(tree, json!({"$bytes": "00ff10"}));
    assert_eq!(Value::try_from(&tree), Ok(bytes));
    for hex in ["0", "0g", "FF", "é"] {
        assert_eq!(Value::try_from(&json!({"$bytes": hex})), Err(BadValue::NotHex), "{hex}");
    }
}

#[test]
fn every_level_can_be_told() {
    let mut store = store(1);
    set(&mut store, WALL, "pets", "fido", "legs", 4);
    set(&mut store, WALL, "pets", "fido", "tags", Json::parse("[\"good\"]").unwrap());
    set(&mut store, WALL, "pets", "felix", "legs", 4.5);
    let mut transaction = store.begin(WALL).unwrap();
    transaction.set_value("open", true).unwrap();
    let _ = transaction.commit().unwrap();
    let fido = r#"{"legs":4,"tags":["good"]}"#;
    let pets = format!(r#"{{"felix":{{"legs":4.5}},"fido":{fido}}}"#);
    assert_eq!(store.row("pets", "fido").unwrap().to_json().to_string(), fido);
    assert_eq!(store.table("pets").unwrap().to_json().to_string(), pets);
    assert_eq!(store.to_json().to_string(), format!(r#"{{"tables":{{"pets":{pets}}},"values":{{"open":true}}}}"#));
}

#[test]
fn an_import_of_another_form_is_refused() {
    for tree in [
        json!([]),
        json!({"table": {}}),
        json!({"tables": []}),
        json!({"tables": {"t": 1}}),
        json!({"tables": {"t": {"r": 1}}}),
        json!({"values": 1}),
    ] {
        assert_eq!(import(&tree).unwrap_err(), WriteError::Import, "{tree}");
    }
    assert!(import(&json!({})).unwrap().is_empty());
}
