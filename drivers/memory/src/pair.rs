//! Two machines that hear each other: what one sends, the other receives, at once and without a network.

use std::array;
use std::collections::VecDeque;

use antiphon::session::{Input, Output};
use antiphon::{Instant, Machine, Session};
use bytes::Bytes;

/// A machine that talks to another one in frames.
pub trait Peer: Machine {
    /// The frame that an output sends, or the output, if it is for the host.
    ///
    /// # Errors
    /// If the output is no frame.
    fn frame_out(output: Self::Output) -> Result<Bytes, Self::Output>;

    /// The input that a frame from the other end is.
    fn frame_in(frame: Bytes) -> Self::Input;
}

impl Peer for Session {
    fn frame_out(output: Output) -> Result<Bytes, Output> {
        match output {
            Output::Transmit(frame) => Ok(frame),
            other => Err(other),
        }
    }

    fn frame_in(frame: Bytes) -> Input {
        Input::Received(frame)
    }
}

/// Two ends, 0 and 1, and what is under way between them: frames arrive whole, once, and in the order sent.
///
/// Time stands still between the calls, and timers are the caller's: see [`deadline`](Self::deadline).
#[derive(Debug)]
pub struct Pair<M: Peer> {
    ends: [M; 2],
    /// Frames under way, by the end that they go to.
    frames: [VecDeque<Bytes>; 2],
    /// Outputs that are for the host, by the end that they come from.
    outputs: [VecDeque<M::Output>; 2],
    /// The end that was delivered to last.
    turn: usize,
}

impl<M: Peer> Pair<M> {
    /// Connects two machines. What they have to say already is under way.
    pub fn new(ends: [M; 2]) -> Self {
        let (frames, outputs) = (array::from_fn(|_| VecDeque::new()), array::from_fn(|_| VecDeque::new()));
        let mut pair = Self { ends, frames, outputs, turn: 1 };
        (0..2).for_each(|side| pair.collect(side));
        pair
    }

    /// The machine at one end.
    pub fn end(&self, side: usize) -> &M {
        &self.ends[side]
    }

    /// Frames that are under way to an end, oldest first: to be looked at, lost or doubled.
    pub fn frames_to(&mut self, side: usize) -> &mut VecDeque<Bytes> {
        &mut self.frames[side]
    }

    /// The next thing that an end wants of its host.
    pub fn poll(&mut self, side: usize) -> Option<M::Output> {
        self.outputs[side].pop_front()
    }

    /// When the first of both timer inputs is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.ends.iter().filter_map(Machine::deadline).min()
    }

    /// Gives an input to an end. What it sends thereupon is under way.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn handle(&mut self, now: Instant, side: usize, input: M::Input) -> Result<(), M::Misuse> {
        self.ends[side].handle(now, input)?;
        self.collect(side);
        Ok(())
    }

    fn collect(&mut self, side: usize) {
        while let Some(output) = self.ends[side].poll() {
            match M::frame_out(output) {
                Ok(frame) => self.frames[1 - side].push_back(frame),
                Err(output) => self.outputs[side].push_back(output),
            }
        }
    }

    /// Delivers the oldest frame that is under way to one end, the ends taking turns. Returns which end; `None` if
    /// nothing is under way.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn step(&mut self, now: Instant) -> Result<Option<usize>, M::Misuse> {
        for side in [1 - self.turn, self.turn] {
            if let Some(frame) = self.frames[side].pop_front() {
                self.turn = side;
                self.handle(now, side, M::frame_in(frame))?;
                return Ok(Some(side));
            }
        }
        Ok(None)
    }

    /// Delivers frames, and gives the outputs for the host to `host`, whose answers are inputs of the same end, until
    /// there are neither. Returns how many frames were delivered. Two ends that never stop talking never settle.
    ///
    /// # Errors
    /// Those of the machines.
    pub fn settle(
        &mut self,
        now: Instant,
        mut host: impl FnMut(usize, M::Output) -> Vec<M::Input>,
    ) -> Result<usize, M::Misuse> {
        let mut delivered = 0;
        loop {
            for side in 0..2 {
                while let Some(output) = self.poll(side) {
                    for input in host(side, output) {
                        self.handle(now, side, input)?;
                    }
                }
            }
            match self.step(now)? {
                Some(_) => delivered += 1,
                None => return Ok(delivered),
            }
        }
    }
}
