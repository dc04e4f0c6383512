//! Buckets in memory: what a store keeps in rows, for simulations and tests.

use std::collections::HashMap;
use std::time::Duration;

use super::book::{Book, Charge, Denied, Order};
use super::bucket::BucketName;
use crate::base::clock::Timestamp;
use crate::model::DnsName;
use crate::store::budget::{Bucket, BucketCost, Taken};

/// Buckets by key; one that was never touched is full.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    buckets: HashMap<String, Bucket>,
}

impl Ledger {
    /// Every bucket is full.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes from all the buckets, or from none; each is named once.
    pub fn take(&mut self, costs: &[BucketCost], now: Timestamp) -> Taken {
        let mut taken = Vec::with_capacity(costs.len());
        for cost in costs {
            if let Some(known) = self.buckets.get_mut(&cost.bucket) {
                *known = known.put_right(cost, now);
            }
            match self.bucket(&cost.bucket).take(cost, now) {
                Ok(after) => taken.push(after),
                Err(retry_after) => {
                    return Taken::Denied {
                        bucket: cost.bucket.clone(),
                        retry_after,
                    };
                }
            }
        }
        let changed = costs.iter().zip(taken).filter(|(cost, _)| cost.units > 0);
        for (cost, after) in changed {
            self.put(&cost.bucket, after);
        }
        Taken::Granted
    }

    /// Takes what an order costs.
    ///
    /// # Errors
    /// [`Denied`] names the bucket that cannot give, and when it can.
    pub fn order(
        &mut self,
        book: &Book,
        order: &Order<'_>,
        now: Timestamp,
    ) -> Result<Charge, Box<Denied>> {
        let charge = book.charge(order);
        let mut costs = &charge.within;
        let mut taken = self.take(costs, now);
        if Book::is_share(&taken) {
            costs = &charge.beyond;
            taken = self.take(costs, now);
        }
        match taken {
            Taken::Granted => Ok(charge),
            Taken::Denied {
                bucket,
                retry_after,
            } => Err(book.denied(costs, &bucket, retry_after)),
        }
    }

    /// No certificate came of an order: what is charged with one comes back.
    pub fn not_issued(&mut self, charge: &Charge) {
        for cost in &charge.if_issued {
            let fuller = self.bucket(&cost.bucket).give_back(cost);
            self.put(&cost.bucket, fuller);
        }
    }

    /// A validation of `name` failed.
    pub fn failed(&mut self, book: &Book, name: &DnsName, now: Timestamp) {
        for cost in book.failed(name) {
            let emptier = self.bucket(&cost.bucket).charge(&cost, now);
            self.put(&cost.bucket, emptier);
        }
    }

    /// A validation of `name` succeeded.
    pub fn succeeded(&mut self, book: &Book, name: &DnsName) {
        for bucket in book.succeeded(name) {
            self.buckets.remove(&bucket);
        }
    }

    /// The authority refuses for `duration`, by the limit that `bucket` mirrors.
    pub fn freeze(&mut self, book: &Book, bucket: &BucketName, now: Timestamp, duration: Duration) {
        let key = bucket.to_string();
        let mut frozen = self.bucket(&key).freeze(duration, now);
        if let Some(all) = book.all_of(bucket) {
            frozen = frozen.charge(&all, now);
        }
        self.put(&key, frozen);
    }

    /// Forgets what is full at `now`: it is as if it had never been touched.
    pub fn sweep(&mut self, now: Timestamp) {
        self.buckets
            .retain(|_, bucket| bucket.full_at.max(bucket.frozen_until) > now);
    }

    fn bucket(&self, key: &str) -> Bucket {
        self.buckets.get(key).copied().unwrap_or_default()
    }

    fn put(&mut self, key: &str, bucket: Bucket) {
        match self.buckets.get_mut(key) {
            Some(known) => *known = bucket,
            None => _ = self.buckets.insert(key.to_owned(), bucket),
        }
    }
}
