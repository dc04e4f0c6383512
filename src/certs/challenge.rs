//! What we answer when a CA asks on port 80: exactly the published (host, token), nothing else.

use std::sync::Arc;

use dashmap::DashMap;

use crate::model::DnsName;

/// The HTTP-01 answers published by this process, read by every worker; other processes' answers are read from
/// the store on a miss. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Challenges {
    own: Arc<DashMap<(DnsName, String), Arc<str>>>,
}

impl Challenges {
    /// The key authorization for exactly this host and token (RFC 8555 §8.3).
    pub async fn http01(&self, host: &DnsName, token: &str) -> Option<Arc<str>> {
        std::future::ready(
            self.own
                .get(&(host.clone(), token.to_owned()))
                .map(|found| Arc::clone(&found)),
        )
        .await
    }
}
