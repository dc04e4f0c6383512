//! Pages that an authority asked not to be asked for again so soon: its directory, above all, which several parts of the
//! program read on their own. The answer that bade one of them wait holds for all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderValue, StatusCode, Uri};

use crate::base::clock::{Instant, Timestamp};
use crate::net::Answer;

/// Pages that are waited for at a time; further ones are asked for as if nothing had been said.
const MOST_PAGES: usize = 16;
/// The longest wait that is kept: who comes back must be found within the hour.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is waited for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<Mutex<HashMap<Uri, Bidden>>>);

#[derive(Debug)]
struct Bidden {
    answer: Answer,
    until: Instant,
}

impl Patience {
    /// The answer that bade us wait, with what is left of the wait; nothing where the page may be asked for.
    pub(super) fn answer(&self, page: &Uri, now: Instant) -> Option<Answer> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|_, bidden| now < bidden.until);
        let bidden = pages.get(page)?;
        let left = bidden.until.saturating_duration_since(now);
        let seconds = left.as_millis().div_ceil(1_000);
        let mut answer = bidden.answer.clone();
        let left = HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX));
        answer.headers.insert(RETRY_AFTER, left);
        // It says nothing of the present.
        answer.headers.remove(DATE);
        Some(answer)
    }

    /// Takes note of an answer: of one that says to wait (RFC 6585 §4, RFC 9110 §15.6.4).
    pub(super) fn note(&self, page: &Uri, answer: &Answer, (now, time): (Instant, Timestamp)) {
        let busy = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        let Some(wait) = answer
            .retry_after(time)
            .filter(|_| busy.contains(&answer.status))
        else {
            return;
        };
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() < MOST_PAGES {
            let bidden = Bidden {
                answer: answer.clone(),
                until: now + wait.min(LONGEST),
            };
            pages.insert(page.clone(), bidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::monotonic;

    fn busy(status: u16, wait: &str) -> Answer {
        let mut headers = http::HeaderMap::new();
        headers.insert(RETRY_AFTER, wait.parse().unwrap());
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: bytes::Bytes::new(),
        }
    }

    #[test]
    fn a_page_is_left_alone_for_as_long_as_was_asked_and_for_an_hour_at_most() {
        let (patience, now) = (Patience::default(), monotonic());
        let page = |n: usize| format!("https://ca.test/{n}").parse::<Uri>().unwrap();
        let time = (now, Timestamp::EPOCH);
        patience.note(&page(0), &busy(503, "20"), time);
        patience.note(&page(1), &busy(429, "86400"), time);
        patience.note(&page(2), &busy(500, "20"), time);
        let left = |n, seconds| {
            let answer = patience.answer(&page(n), now + Duration::from_millis(seconds));
            answer.map(|answer| answer.retry_after(Timestamp::EPOCH).unwrap().as_secs())
        };
        assert_eq!(left(0, 500), Some(20));
        assert_eq!((left(1, 1_000), left(2, 0)), (Some(3_599), None));
        assert_eq!((left(0, 20_000), left(1, 3_600_000)), (None, None));
    }

    #[test]
    fn no_more_pages_are_kept_than_the_bound() {
        let (patience, now) = (Patience::default(), monotonic());
        for n in 0..100 {
            let page = format!("https://ca.test/{n}").parse().unwrap();
            patience.note(&page, &busy(503, "20"), (now, Timestamp::EPOCH));
        }
        assert_eq!(patience.0.lock().unwrap().len(), MOST_PAGES);
    }
}
