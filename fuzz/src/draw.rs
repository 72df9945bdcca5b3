//! Plans for the simulator, of which the input decides everything that a seed decides elsewhere.

use antiphon_sim::plan::{PlanOf, Profile, Source};
use antiphon_sim::replica::WriterNode;

use crate::input::Reader;

impl Source for Reader<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        match bound {
            0 | 1 => 0,
            2..=256 => u64::from(self.byte()) % bound,
            _ => u64::from(u16::from_le_bytes([self.byte(), self.byte()])) % bound,
        }
    }
}

/// The plan that these bytes stand for.
pub fn drawn(data: &[u8]) -> PlanOf<WriterNode> {
    let mut input = Reader(data);
    let profile = Profile::draw_any(&mut input);
    let seed = input.byte().into();
    profile.draw::<WriterNode>(seed, &mut input)
}
