//! What we answer when a CA asks on port 80: exactly the published (host, token), nothing else.
//!
//! An answer is committed to the store, then published here, and only then is the CA told (RFC 8555 §7.5.1): any
//! worker of any node can answer it. Workers look in memory first. A miss may be another node's challenge: it is asked
//! of the store, but only for a known host and a well-formed token, and by the control runtime, never by a worker.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{mpsc, oneshot};

use crate::base::published::Published;
use crate::base::single_flight::SingleFlight;
use crate::base::task::Tasks;
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

/// The HTTP-01 answers of this process, and the way to those of others. Clones are the same. Holds the answers of the
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
    answer: oneshot::Sender<Option<Arc<str>>>,
}

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

    /// Answers `token` of `host` from now on. The caller has committed it to the store.
    pub fn publish(&self, host: &DnsName, token: &str, key_authorization: &str) {
        let answer = Answer {
            token: token.to_owned(),
            key_authorization: Arc::from(key_authorization),
        };
        let mut answers = self.own.entry(host.clone()).or_default();
        answers.retain(|known| known.token != token);
        answers.push(answer);
    }

    /// Answers nothing of `host` any more.
    pub fn withdraw(&self, host: &DnsName) {
        self.own.remove(host);
    }

    /// The key authorization for exactly this host and token (RFC 8555 §8.3). A token that no CA would make, or a host
    /// that nobody registered, costs no question.
    pub async fn http01(&self, host: &DnsName, token: &str) -> Option<Arc<str>> {
        if !is_well_formed(token) {
            return None;
        }
        if let Some(found) = self.published_here(host, token) {
            return Some(found);
        }
        let others = self.others.as_ref()?;
        if !others.may_know(host) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let question = Question {
            host: host.clone(),
            token: token.to_owned(),
            answer,
        };
        others.questions.try_send(question).ok()?;
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        answered.ok()?.ok()?
    }

    /// Like [`Challenges::http01`], from the memory of this process alone.
    #[must_use]
    pub fn published_here(&self, host: &DnsName, token: &str) -> Option<Arc<str>> {
        let answers = self.own.get(host)?;
        let found = answers.iter().find(|answer| answer.token == token)?;
        Some(Arc::clone(&found.key_authorization))
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
    /// Answers until the group ends or nobody asks any more. Equal questions are one read; a store that fails or is
    /// slow gives no answer, and the CA asks again.
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
                answer.send(found.ok().flatten()).ok();
            });
        }
    }
}

async fn read(store: Arc<dyn Store>, host: DnsName, token: String) -> Option<Arc<str>> {
    match store
        .challenge(Deadline::after(PATIENCE), &host, &token)
        .await
    {
        Ok(found) => found.map(Arc::from),
        Err(error) => {
            tracing::warn!(domain = %host, %error, "a challenge could not be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
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
            challenges.http01(&name("a.test"), TOKEN).await.as_deref(),
            Some("second")
        );
        assert_eq!(challenges.http01(&name("b.test"), TOKEN).await, None);
        assert_eq!(challenges.http01(&name("a.test"), other).await, None);
        challenges.withdraw(&name("a.test"));
        assert_eq!(challenges.http01(&name("a.test"), TOKEN).await, None);
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
            assert_eq!(challenges.http01(&name(host), token).await, None);
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
            question.answer.send(Some(Arc::from("theirs"))).unwrap();
        };
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer.as_deref(), Some("theirs"));
    }

    #[tokio::test]
    async fn while_the_names_are_still_being_read_an_absent_host_is_asked_about() {
        let (challenges, mut questions) = Challenges::channel(Published::new(Snapshot::empty()));
        let asking = async { challenges.http01(&name("a.test"), TOKEN).await };
        let answering = async {
            let question = questions.0.recv().await.unwrap();
            question.answer.send(None).unwrap();
        };
        assert_eq!(tokio::join!(asking, answering).0, None);
    }
}
