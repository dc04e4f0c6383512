//! What we answer when a CA asks for a proof, on port 80 (HTTP-01) or on port 443 (TLS-ALPN-01, [`tls_alpn`]): exactly
//! what is published for the host and token, nothing else.
//!
//! An answer is committed to the store, then published here, and only then is the CA told (RFC 8555 §7.5.1): any
//! worker of any node can answer it. Workers look in memory first. A miss may be another node's challenge: it is asked
//! of the store, but only for a known host and a well-formed token, and by the control runtime, never by a worker.

pub mod tls_alpn;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};

use crate::base::published::Published;
use crate::base::single_flight::SingleFlight;
use crate::base::task::Tasks;
use crate::ca::Challenge;
use crate::model::challenge::ChallengeKind;
use crate::model::{DnsName, Snapshot};
use crate::store::{Deadline, Store};

/// How long an answer from the store may take: a CA waits some seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that wait to be taken up; further ones are answered with nothing.
const MOST_QUESTIONS: usize = 64;
/// Questions that are put to the store at once.
const MOST_READS: usize = 32;
/// A CA asks for one token from several places.
const MOST_ASKERS: usize = 16;

/// The answers of this process, and the way to those of others. Clones are the same. Holds the answers of the
/// issuances that run here, and none else.
#[derive(Clone, Debug, Default)]
pub struct Challenges {
    own: Arc<DashMap<DnsName, Vec<Answer>>>,
    others: Option<Others>,
}

#[derive(Debug)]
struct Answer {
    token: String,
    key_authorization: Arc<str>,
}

#[derive(Clone, Debug)]
struct Others {
    snapshot: Published<Snapshot>,
    questions: mpsc::Sender<Question>,
}

#[derive(Debug)]
struct Question {
    host: DnsName,
    token: String,
    answer: oneshot::Sender<Found>,
}

/// What was found out about a challenge: its key authorization, or for sure nothing.
type Found = Result<Option<Arc<str>>, LookupError>;

/// Why it is not known whether a challenge is published. A CA that asked will ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// More questions wait than are taken up: 64, 32 of them read at once.
    Crowded,
    /// The store failed.
    Store,
    /// The store did not answer within 2 s.
    Timeout,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crowded => "more challenges are looked up than the store is asked about at once",
            Self::Store => "the store could not read the challenge",
            Self::Timeout => "the store did not answer about the challenge within 2 s",
        })
    }
}

impl std::error::Error for LookupError {}

impl Challenges {
    /// Those of this process, and the half that asks the store for those of others, about the hosts that `snapshot`
    /// knows. `Challenges::default()` knows only its own.
    #[must_use]
    pub fn channel(snapshot: Published<Snapshot>) -> (Self, Questions) {
        let (questions, asked) = mpsc::channel(MOST_QUESTIONS);
        let challenges = Self {
            own: Arc::default(),
            others: Some(Others {
                snapshot,
                questions,
            }),
        };
        (challenges, Questions(asked))
    }

    /// Answers `token` of `host` from now on; see [`kept_as`]. The caller has committed it to the store.
    pub fn publish(&self, host: &DnsName, token: &str, key_authorization: &str) {
        let answer = Answer {
            token: token.to_owned(),
            key_authorization: Arc::from(key_authorization),
        };
        let mut answers = self.own.entry(host.clone()).or_default();
        answers.retain(|known| known.token != token);
        answers.push(answer);
    }

    /// Does not answer `token` of `host` any more; see [`kept_as`]. Its other challenges stay: a check of the name and an
    /// order may be under way at once.
    pub fn withdraw(&self, host: &DnsName, token: &str) {
        if let Some(mut answers) = self.own.get_mut(host) {
            answers.retain(|known| known.token != token);
        }
        self.own.remove_if(host, |_, answers| answers.is_empty());
    }

    /// The key authorization for exactly this host and token (RFC 8555 §8.3). A token that no CA would make, or a host
    /// that nobody registered, costs no question. Nothing where none is published.
    ///
    /// # Errors
    /// [`LookupError`] where another node may have published one and the store does not tell.
    pub async fn http01(&self, host: &DnsName, token: &str) -> Found {
        match is_well_formed(token) {
            true => self.find(host, token).await,
            false => Ok(None),
        }
    }

    /// The key authorization whose digest answers for this host (RFC 8737 §3). A host that nobody registered costs no
    /// question. Nothing where none is published.
    ///
    /// # Errors
    /// As [`Challenges::http01`].
    pub async fn tls_alpn01(&self, host: &DnsName) -> Found {
        self.find(host, tls_alpn::PROTOCOL).await
    }

    async fn find(&self, host: &DnsName, token: &str) -> Found {
        if let Some(found) = self.published_here(host, token) {
            return Ok(Some(found));
        }
        let Some(others) = self.others.as_ref().filter(|others| others.may_know(host)) else {
            return Ok(None);
        };
        let (answer, answered) = oneshot::channel();
        let question = Question {
            host: host.clone(),
            token: token.to_owned(),
            answer,
        };
        let asked = others.questions.try_send(question);
        asked.map_err(|_full_or_ended| LookupError::Crowded)?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(found)) => found,
            Ok(Err(_dropped)) => Err(LookupError::Store),
            Err(_elapsed) => Err(LookupError::Timeout),
        }
    }

    /// What is kept under `token`, in the memory of this process alone.
    #[must_use]
    pub fn published_here(&self, host: &DnsName, token: &str) -> Option<Arc<str>> {
        let answers = self.own.get(host)?;
        let found = answers.iter().find(|answer| answer.token == token)?;
        Some(Arc::clone(&found.key_authorization))
    }
}

/// The token under which the answer to `challenge` is kept, in the store and here: its own, but for TLS-ALPN-01, where
/// the authority asks for none.
#[must_use]
pub fn kept_as(challenge: &Challenge) -> &str {
    match challenge.kind {
        ChallengeKind::Http01 => &challenge.token,
        ChallengeKind::TlsAlpn01 => tls_alpn::PROTOCOL,
    }
}

impl Others {
    /// Whether `host` is registered, as far as the snapshot can tell.
    fn may_know(&self, host: &DnsName) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.domain(host).is_some() || !snapshot.is_complete()
    }
}

/// RFC 8555 §8.3: base64url without padding, at least 128 bits, which is 22 characters.
fn is_well_formed(token: &str) -> bool {
    (22..=128).contains(&token.len())
        && token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The half that asks the store, on the control runtime.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

impl Questions {
    /// Answers until the group ends or nobody asks any more. Equal questions are one read.
    pub async fn answer(mut self, store: Arc<dyn Store>, tasks: Tasks) {
        let reads = SingleFlight::new(MOST_READS, MOST_ASKERS);
        let cancelled = tasks.token();
        while let Some(Some(question)) = cancelled.run_until_cancelled(self.0.recv()).await {
            let (store, reads, tasks) = (Arc::clone(&store), reads.clone(), tasks.clone());
            let group = tasks.clone();
            group.spawn("challenge_question", async move {
                let Question {
                    host,
                    token,
                    answer,
                } = question;
                let key = (host.clone(), token.clone());
                let found = reads.run(&tasks, key, || read(store, host, token)).await;
                let found = found.unwrap_or(Err(LookupError::Crowded));
                answer.send(found).ok();
            });
        }
    }
}

async fn read(store: Arc<dyn Store>, host: DnsName, token: String) -> Found {
    match store
        .challenge(Deadline::after(PATIENCE), &host, &token)
        .await
    {
        Ok(found) => Ok(found.map(Arc::from)),
        Err(error) => {
            tracing::warn!(domain = %host, %error, "a challenge could not be read");
            Err(LookupError::Store)
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::model::NamePattern;
    use crate::model::TenantId;
    use crate::model::snapshot::KnownDomain;

    const TOKEN: &str = "DGyRejmCefe7v4NfDGDKfA";

    fn name(text: &str) -> DnsName {
        DnsName::parse(text).unwrap()
    }

    #[tokio::test]
    async fn answers_exactly_what_is_published_and_until_it_is_withdrawn() {
        let challenges = Challenges::default();
        challenges.publish(&name("a.test"), TOKEN, "first");
        challenges.clone().publish(&name("a.test"), TOKEN, "second");
        let other = "DGyRejmCefe7v4NfDGDKfB";
        assert_eq!(
            challenges.http01(&name("a.test"), TOKEN).await,
            Ok(Some(Arc::from("second")))
        );
        assert_eq!(challenges.http01(&name("b.test"), TOKEN).await, Ok(None));
        assert_eq!(challenges.http01(&name("a.test"), other).await, Ok(None));
        challenges.publish(&name("a.test"), other, "third");
        challenges.withdraw(&name("a.test"), other);
        assert_eq!(challenges.http01(&name("a.test"), other).await, Ok(None));
        assert!(challenges.published_here(&name("a.test"), TOKEN).is_some());
        challenges.withdraw(&name("a.test"), TOKEN);
        assert_eq!(challenges.http01(&name("a.test"), TOKEN).await, Ok(None));
        assert!(challenges.own.is_empty());
    }

    #[tokio::test]
    async fn only_known_hosts_and_well_formed_tokens_are_asked_about() {
        let mut known = Snapshot::empty();
        let domain = KnownDomain {
            tenant: TenantId::parse("acme").unwrap(),
            served: true,
            upstream: None,
        };
        known.put([(NamePattern::Exact(name("a.test")), domain)]);
        known.mark_complete();
        let (challenges, mut questions) = Challenges::channel(Published::new(known));
        for (host, token) in [
            ("b.test", TOKEN),
            ("a.test", "short"),
            ("a.test", "DGyRejmCefe7v4NfDGDKf/"),
            ("a.test", "<script>alert(1)</script>"),
            ("a.test", &"a".repeat(129)),
        ] {
            assert_eq!(challenges.http01(&name(host), token).await, Ok(None));
        }
        assert!(questions.0.try_recv().is_err());

        let asking = {
            let challenges = challenges.clone();
            async move { challenges.http01(&name("a.test"), TOKEN).await }
        };
        let answering = async {
            let question = questions.0.recv().await.unwrap();
            assert_eq!(
                (question.host, question.token.as_str()),
                (name("a.test"), TOKEN)
            );
            question.answer.send(Ok(Some(Arc::from("theirs")))).unwrap();
        };
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer, Ok(Some(Arc::from("theirs"))));
    }

    #[tokio::test]
    async fn what_answers_by_tls_is_never_given_on_port_80_and_the_other_way_round() {
        let challenges = Challenges::default();
        let challenge = |kind, host: &str| Challenge {
            kind,
            host: name(host),
            token: TOKEN.to_owned(),
            key_authorization: "proof".to_owned(),
        };
        for challenge in [
            challenge(ChallengeKind::Http01, "a.test"),
            challenge(ChallengeKind::TlsAlpn01, "b.test"),
        ] {
            challenges.publish(&challenge.host, kept_as(&challenge), "proof");
        }
        let proof = Ok(Some(Arc::from("proof")));
        assert_eq!(challenges.http01(&name("a.test"), TOKEN).await, proof);
        assert_eq!(challenges.tls_alpn01(&name("a.test")).await, Ok(None));
        assert_eq!(challenges.tls_alpn01(&name("b.test")).await, proof);
        for token in [TOKEN, tls_alpn::PROTOCOL] {
            assert_eq!(challenges.http01(&name("b.test"), token).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn what_the_store_does_not_tell_is_not_taken_for_nothing() {
        let (challenges, mut questions) = Challenges::channel(Published::new(Snapshot::empty()));
        let host = name("a.test");
        let answering = async {
            let question = questions.0.recv().await.unwrap();
            question.answer.send(Err(LookupError::Store)).unwrap();
            // The next is dropped, as when the process ends.
            questions.0.recv().await.unwrap();
        };
        let asking = async {
            for _ in 0..2 {
                let found = challenges.http01(&host, TOKEN).await;
                assert_eq!(found, Err(LookupError::Store));
            }
        };
        tokio::join!(asking, answering);
        // Nobody takes these up.
        for _ in 0..MOST_QUESTIONS {
            assert!(challenges.http01(&host, TOKEN).now_or_never().is_none());
        }
        let found = challenges.http01(&host, TOKEN).now_or_never();
        assert_eq!(found, Some(Err(LookupError::Crowded)));
    }

    #[tokio::test]
    async fn while_the_names_are_still_being_read_an_absent_host_is_asked_about() {
        let (challenges, mut questions) = Challenges::channel(Published::new(Snapshot::empty()));
        let asking = async { challenges.http01(&name("a.test"), TOKEN).await };
        let answering = async {
            let question = questions.0.recv().await.unwrap();
            question.answer.send(Ok(None)).unwrap();
        };
        assert_eq!(tokio::join!(asking, answering).0, Ok(None));
    }
}
