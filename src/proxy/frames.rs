//! Counts HTTP/2 frames as they pass, without keeping a byte of their payload.
//!
//! The h2 library ends floods of continuations and empty data by itself, and of resets that come faster than their
//! requests are begun; but it answers any number of PING, SETTINGS, PRIORITY and unknown frames, and has requests begun
//! and given up for ever (RFC 9113 §10.5; CVE-2023-44487). This meter sees only the nine bytes of each frame's header,
//! and is told of requests that were given up.

use std::time::Duration;

use crate::base::clock::Instant;

/// The client's connection preface (RFC 9113 §3.4).
const PREFACE_LENGTH: u32 = 24;
const HEADER_LENGTH: usize = 9;
/// How long frames are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Control frames that each request and each piece of data pays for.
const CREDIT_PER_EVENT: u32 = 4;
/// Further control frames paid for by so many bytes of data: windows are reopened as they are read.
const BYTES_PER_CREDIT: u32 = 1024;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// What a visitor earns by sending or receiving `bytes` of data, or by a request (0 bytes).
#[must_use]
pub fn credit(bytes: usize) -> u32 {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    CREDIT_PER_EVENT.saturating_add(bytes / BYTES_PER_CREDIT)
}

/// Follows the frames of one connection's reading side.
#[derive(Clone, Copy, Debug)]
pub struct FrameMeter {
    /// Bytes to pass over before the next frame header.
    skip: u32,
    header: [u8; HEADER_LENGTH],
    have: usize,
    in_head: bool,
    window_since: Instant,
    control: u32,
    earned: u32,
    given_up: u32,
}

/// What a connection may send in ten seconds.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Frames without a request or data, beyond what was earned.
    pub control: u32,
    /// Requests given up before an answer to them began.
    pub given_up: u32,
}

impl FrameMeter {
    /// A meter for a connection that begins now with the client's preface.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE_LENGTH,
            header: [0; HEADER_LENGTH],
            have: 0,
            in_head: false,
            window_since: now,
            control: 0,
            earned: 0,
            given_up: 0,
        }
    }

    /// Follows `bytes` as they were read.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let over = usize::try_from(self.skip)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                bytes = bytes.get(over..).unwrap_or_default();
                self.skip -= u32::try_from(over).unwrap_or(self.skip);
                continue;
            }
            let (first, rest) = match bytes.split_first() {
                Some((first, rest)) => (*first, rest),
                None => return,
            };
            if let Some(place) = self.header.get_mut(self.have) {
                *place = first;
            }
            self.have += 1;
            bytes = rest;
            if self.have == HEADER_LENGTH {
                self.have = 0;
                self.frame();
            }
        }
    }

    fn frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = length;
        match kind {
            DATA => self.earn(match length {
                0 => 0,
                bytes => credit(usize::try_from(bytes).unwrap_or(usize::MAX)),
            }),
            HEADERS | CONTINUATION => self.in_head = flags & END_HEADERS == 0,
            _ => self.control = self.control.saturating_add(1),
        }
    }

    /// Adds to what the visitor may spend on control frames in this window.
    pub const fn earn(&mut self, credit: u32) {
        self.earned = self.earned.saturating_add(credit);
    }

    /// Counts requests that the visitor gave up before an answer to them began.
    pub const fn give_up(&mut self, requests: u32) {
        self.given_up = self.given_up.saturating_add(requests);
    }

    /// Whether more came in the current ten seconds than `most` and what was earned.
    pub fn is_flooded(&mut self, most: Allowance, now: Instant) -> bool {
        let flooded = self.control > most.control.saturating_add(self.earned)
            || self.given_up > most.given_up;
        if !flooded && now.saturating_duration_since(self.window_since) >= WINDOW {
            (self.window_since, self.control, self.earned) = (now, 0, 0);
            self.given_up = 0;
        }
        flooded
    }

    /// Whether a request's or a trailer's head has begun and not ended.
    #[must_use]
    pub const fn is_in_head(&self) -> bool {
        self.in_head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::monotonic;

    const PING: u8 = 0x6;
    const MOST: Allowance = Allowance {
        control: 100,
        given_up: 100,
    };

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 0];
        bytes.resize(HEADER_LENGTH + length, 0xff);
        bytes
    }

    fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frames.concat());
        bytes
    }

    #[test]
    fn counts_the_same_however_the_bytes_are_cut() {
        let frames: Vec<_> = (0..40).map(|n| frame(PING, 0, 8 + n % 3)).collect();
        let bytes = stream(&frames);
        for piece in [1, 2, 3, 7, 9, 17, 1000] {
            let mut meter = FrameMeter::new(monotonic());
            bytes.chunks(piece).for_each(|bytes| meter.pass(bytes));
            assert_eq!(meter.control, 40, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_flood_of_control_frames_is_told_and_work_pays_for_some() {
        let now = monotonic();
        let mut meter = FrameMeter::new(now);
        meter.pass(&stream(&vec![frame(PING, 0, 8); 101]));
        assert!(meter.clone().is_flooded(MOST, now));
        meter.earn(credit(0));
        assert!(!meter.is_flooded(MOST, now));
        meter.pass(&frame(DATA, 0, 16 * 1024));
        assert_eq!(meter.earned, 4 + 4 + 16);
        meter.pass(&frame(DATA, 0, 0));
        assert_eq!(meter.earned, 24, "empty data earns nothing");
    }

    #[test]
    fn a_new_window_begins_after_ten_seconds() {
        let now = monotonic();
        let mut meter = FrameMeter::new(now);
        meter.pass(&stream(&vec![frame(PING, 0, 8); 100]));
        assert!(!meter.is_flooded(MOST, now + WINDOW));
        meter.pass(&frame(PING, 0, 8));
        assert!(!meter.is_flooded(MOST, now + WINDOW));
    }

    #[test]
    fn no_work_pays_for_requests_that_were_given_up() {
        let now = monotonic();
        let mut meter = FrameMeter::new(now);
        for _ in 0..100 {
            meter.earn(credit(0));
            meter.give_up(1);
        }
        assert!(!meter.is_flooded(MOST, now));
        meter.give_up(1);
        assert!(meter.clone().is_flooded(MOST, now + WINDOW));
    }

    #[test]
    fn a_head_is_open_until_its_last_fragment() {
        let mut meter = FrameMeter::new(monotonic());
        meter.pass(&stream(&[frame(HEADERS, 0, 10)]));
        assert!(meter.is_in_head());
        meter.pass(&frame(CONTINUATION, 0, 5));
        assert!(meter.is_in_head());
        meter.pass(&frame(CONTINUATION, END_HEADERS, 5));
        assert!(!meter.is_in_head());
    }
}
