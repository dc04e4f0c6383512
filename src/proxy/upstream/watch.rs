//! What a connection to an upstream is waiting for and until when; and why it was cut off.
//!
//! One timer in the connection's driver serves all deadlines. A request costs it a few writes to cells.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::base::clock::Instant;
use crate::model::route::UpstreamTimeouts;
use crate::proxy::fault::Fault;
use crate::proxy::limits::Deadlines;

/// Why a connection was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Cut {
    /// It was idle for long enough, or had to make room.
    Idle,
    /// The request or its response was given up by the visitor.
    Abandoned,
    /// What came cannot be trusted to be in step any more.
    NotReusable,
    /// The visitor sent no content in time.
    ContentTimeout,
    /// The upstream took no content in time.
    SendTimeout,
    /// The upstream's response did not begin in time.
    ResponseTimeout,
    /// The upstream's response stalled.
    ReadTimeout,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "the connection was idle, or had to make room",
            Self::Abandoned => "the visitor gave the request up",
            Self::NotReusable => "the connection cannot be trusted to be in step",
            Self::ContentTimeout => "the visitor sent no content in time",
            Self::SendTimeout => "the upstream took no content in time",
            Self::ResponseTimeout => "the response did not begin in time",
            Self::ReadTimeout => "the response stalled",
        })
    }
}

impl Cut {
    /// The fault that a request cut off before its response ends with.
    pub(in crate::proxy) const fn fault(self) -> Fault {
        match self {
            Self::ContentTimeout => Fault::ContentTimeout,
            Self::SendTimeout => Fault::SendTimeout,
            Self::ResponseTimeout | Self::ReadTimeout => Fault::ResponseTimeout,
            Self::Idle | Self::Abandoned | Self::NotReusable => Fault::Closed,
        }
    }
}

/// How far the request's content has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Upload {
    /// Taken whole, or there is none.
    Ended,
    /// Not yet.
    Open,
    /// The visitor's side of it failed.
    Failed,
}

/// How long each wait may last.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Patience {
    /// For a next piece of content from the visitor.
    pub content: Duration,
    /// For the upstream to begin its response once it has the request.
    pub response: Duration,
    /// For the upstream to read or to send the next piece.
    pub upstream: Duration,
}

impl Patience {
    /// With any visitor, and with an upstream that has these timeouts.
    pub(super) const fn of(visitor: &Deadlines, upstream: &UpstreamTimeouts) -> Self {
        Self {
            content: visitor.read_stall,
            response: upstream.response,
            upstream: upstream.idle,
        }
    }
}

type Due = Option<(Instant, Cut)>;

/// Shared by a connection's driver and its request, which are on one thread.
#[derive(Debug)]
pub(in crate::proxy) struct Watch {
    patience: Cell<Patience>,
    up: Cell<Due>,
    down: Cell<Due>,
    upload: Cell<Upload>,
    cut: Cell<Option<Cut>>,
    resting: Cell<Option<u64>>,
    driver: RefCell<Option<Waker>>,
}

impl Watch {
    /// A connection about to get its first request.
    pub(super) const fn new(patience: Patience) -> Self {
        Self {
            patience: Cell::new(patience),
            up: Cell::new(None),
            down: Cell::new(None),
            upload: Cell::new(Upload::Ended),
            cut: Cell::new(None),
            resting: Cell::new(None),
            driver: RefCell::new(None),
        }
    }

    /// How long each wait may last.
    pub(in crate::proxy) const fn patience(&self) -> Patience {
        self.patience.get()
    }

    /// It waits in a pool, until `until` at most; `serial` says since when, compared with others.
    pub(super) fn rests(&self, serial: u64, until: Instant) {
        self.resting.set(Some(serial));
        self.up.set(None);
        self.down.set(Some((until, Cut::Idle)));
    }

    /// The serial it rests under, if it does.
    pub(super) const fn resting(&self) -> Option<u64> {
        self.resting.get()
    }

    /// It rests no more; tells whether it did.
    pub(super) fn rises(&self) -> bool {
        self.resting.take().is_some()
    }

    /// A request begins.
    pub(super) fn begins(&self, patience: Patience, upload: Upload, now: Instant) {
        self.patience.set(patience);
        self.upload.set(upload);
        match upload {
            Upload::Ended => {
                self.up.set(None);
                self.down
                    .set(Some((now + patience.response, Cut::ResponseTimeout)));
            }
            Upload::Open | Upload::Failed => {
                self.up
                    .set(Some((now + patience.upstream, Cut::SendTimeout)));
                self.down.set(None);
            }
        }
    }

    /// The upload waits for the visitor, until `until` at most.
    pub(super) fn upload_waits(&self, until: Instant) {
        self.up.set(Some((until, Cut::ContentTimeout)));
    }

    /// The upstream was given a piece of content.
    pub(super) fn upload_moved(&self, now: Instant) {
        let until = now + self.patience.get().upstream;
        self.up.set(Some((until, Cut::SendTimeout)));
    }

    /// The upload has ended; unless the response has begun, it is due now.
    pub(super) fn upload_ended(&self, now: Instant) {
        if self.upload.get() != Upload::Open {
            return;
        }
        self.upload.set(Upload::Ended);
        self.up.set(None);
        if self.down.get().is_none() {
            let until = now + self.patience.get().response;
            self.down.set(Some((until, Cut::ResponseTimeout)));
        }
    }

    /// The upload has failed on the visitor's side.
    pub(super) fn upload_failed(&self) {
        self.upload.set(Upload::Failed);
    }

    /// How far the upload has come.
    pub(in crate::proxy) const fn upload(&self) -> Upload {
        self.upload.get()
    }

    /// The response waits for the upstream's next piece.
    pub(in crate::proxy) fn response_waits(&self, now: Instant) {
        let until = now + self.patience.get().upstream;
        self.down.set(Some((until, Cut::ReadTimeout)));
    }

    /// The response waits for the visitor to take a piece, whom the deadlines of his own connection hold to it.
    pub(in crate::proxy) fn visitor_reads(&self) {
        self.down.set(None);
    }

    /// Nothing has a deadline here any more: the connection became a tunnel, which has its own.
    pub(in crate::proxy) fn becomes_tunnel(&self) {
        self.up.set(None);
        self.down.set(None);
    }

    /// Why it was cut off, if it was.
    pub(in crate::proxy) const fn cut(&self) -> Option<Cut> {
        self.cut.get()
    }

    /// Cuts the connection off: its driver drops it at once, whatever it is doing. The first reason stays.
    pub(in crate::proxy) fn cut_off(&self, why: Cut) {
        if self.cut.get().is_none() {
            self.cut.set(Some(why));
        }
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
    }

    /// The driver sleeps, and wants to be woken when the connection is cut off.
    pub(super) fn wake_driver_by(&self, cx: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        match &*driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => *driver = Some(cx.waker().clone()),
        }
    }

    /// The first deadline, and what has happened when it passes.
    pub(super) fn due(&self) -> Due {
        [self.up.get(), self.down.get()]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}
