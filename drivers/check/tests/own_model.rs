//! Models of one's own: what is found, by which path, and when there is no more.

use antiphon_check::{Broken, Fair, Limits, Model, Violation, explore};

/// Two hands that pour between two jugs; a jug may break.
#[derive(Clone, Copy)]
struct Jugs {
    sizes: [u8; 2],
    /// What must never be in the first.
    never: Option<u8>,
    /// What can always be got into the first.
    always: Option<u8>,
    panics_at: Option<u8>,
}

const JUGS: Jugs = Jugs { sizes: [5, 3], never: None, always: None, panics_at: None };

#[derive(Clone, Copy, Debug)]
enum Pour {
    Fill(usize),
    Empty(usize),
    Over(usize),
}

impl Model for Jugs {
    type State = [u8; 2];
    type Action = Pour;

    fn initial(&self) -> [u8; 2] {
        [0, 0]
    }

    fn digest(&self, state: &[u8; 2]) -> u128 {
        u128::from(state[0]) << 8 | u128::from(state[1])
    }

    fn actions(&self, _: &[u8; 2]) -> Vec<Pour> {
        [0, 1].into_iter().flat_map(|jug| [Pour::Fill(jug), Pour::Empty(jug), Pour::Over(jug)]).collect()
    }

    fn step(&self, state: &[u8; 2], action: &Pour) -> Result<[u8; 2], Broken> {
        let mut next = *state;
        match *action {
            Pour::Fill(jug) => next[jug] = self.sizes[jug],
            Pour::Empty(jug) => next[jug] = 0,
            Pour::Over(from) => {
                let poured = state[from].min(self.sizes[1 - from] - state[1 - from]);
                next[from] -= poured;
                next[1 - from] += poured;
            }
        }
        assert_ne!(Some(next[0]), self.panics_at, "the jug is broken");
        Ok(next)
    }

    fn describe(&self, state: &[u8; 2], action: &Pour) -> String {
        format!("{state:?} {action:?}")
    }

    fn check(&self, state: &[u8; 2]) -> Result<(), Broken> {
        if self.never == Some(state[0]) { Err(Broken::new("never so much", format!("{state:?}"))) } else { Ok(()) }
    }

    fn fair(&self, state: &[u8; 2]) -> Fair<Pour> {
        match self.always {
            None => Fair::Reached,
            Some(wanted) if state[0] == wanted => Fair::Reached,
            // Fills the large jug and pours it into the small one, over and over.
            Some(_) if state[0] == 0 => Fair::Next(Pour::Fill(0)),
            Some(_) if state[1] == self.sizes[1] => Fair::Next(Pour::Empty(1)),
            Some(_) => Fair::Next(Pour::Over(0)),
        }
    }
}

fn violation(jugs: Jugs) -> Violation {
    *explore(&jugs, &Limits { fair_steps: 100, ..Limits::default() }, |_| {}).expect_err("a law is broken")
}

#[test]
fn all_states_are_found_once() {
    let report = explore(&JUGS, &Limits::default(), |_| {}).expect("no law is broken");
    // Each jug full or empty beside anything in the other, which is what pouring can do.
    assert_eq!((report.states, report.transitions, report.complete), (16, 16 * 6, true));
    assert_eq!(report.depth, 7);
}

#[test]
fn a_limit_ends_it() {
    let report = explore(&JUGS, &Limits { states: 5, ..Limits::default() }, |_| {}).expect("no law is broken");
    assert_eq!((report.states, report.complete), (5, false));
}

#[test]
fn the_path_is_a_shortest_one() {
    let found = violation(Jugs { never: Some(4), ..JUGS });
    assert_eq!(found.broken, Broken::new("never so much", "[4, 3]"));
    let path =
        ["[0, 0] Fill(0)", "[5, 0] Over(0)", "[2, 3] Empty(1)", "[2, 0] Over(0)", "[0, 2] Fill(0)", "[5, 2] Over(0)"];
    assert_eq!((&found.path[..], found.chosen), (&path.map(String::from)[..], 6));
}

#[test]
fn a_livelock_is_found() {
    assert!(explore(&Jugs { always: Some(4), ..JUGS }, &Limits::default(), |_| {}).is_ok());
    let found = violation(Jugs { sizes: [4, 2], always: Some(3), ..JUGS });
    assert_eq!((found.chosen, found.path.len()), (0, 100), "from the start it goes on for ever: {found}");
    assert!(found.to_string().contains("from here on nothing goes wrong any more"));
}

#[test]
fn a_panic_has_a_path_too() {
    let found = violation(Jugs { panics_at: Some(2), ..JUGS });
    assert!(found.broken.detail.contains("the jug is broken"), "{found}");
    assert_eq!(found.path, ["[0, 0] Fill(0)", "[5, 0] Over(0)"]);
}
