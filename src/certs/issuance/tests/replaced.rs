//! Renewals say what they replace, and do not fail for it.

use super::*;
use crate::ca::CaError;
use script::refused;

/// How the orders of a renewal went, where its first order is refused in these ways: for each order, whether it said
/// what it replaces.
async fn renew(refusals: Vec<CaError>) -> (Vec<bool>, Result<Arc<Credential>, Arc<Problem>>) {
    let world = World::new(quick()).await;
    world.register("a.test").await;
    let first = world.obtain("a.test").await.unwrap();
    let leaf = first.certified.cert.first().unwrap().to_vec();
    for error in refusals {
        world.script.will_refuse(error);
    }
    let mut subscription = world.parts.outcomes.subscribe(&pattern("a.test"));
    world.clock.advance(HOUR * 24 * 4);
    let told = tokio::time::timeout(LONG, subscription.next())
        .await
        .unwrap();
    let orders = world.script.replaced.lock().unwrap().clone();
    assert_eq!(
        orders.first(),
        Some(&None),
        "the first certificate replaces none"
    );
    let said = orders.iter().skip(1).map(|replaced| match replaced {
        Some(replaced) => {
            assert_eq!(*replaced, leaf);
            true
        }
        None => false,
    });
    let result = match told {
        Outcome::Issued(credential) => Ok(credential),
        Outcome::Failed(problem) => Err(problem),
    };
    (said.collect(), result)
}

#[tokio::test]
async fn a_renewal_says_what_it_replaces() {
    let (said, renewed) = renew(Vec::new()).await;
    assert_eq!(said, [true]);
    renewed.unwrap();
}

#[tokio::test]
async fn an_order_refused_for_what_it_replaces_is_placed_once_without() {
    let status = |status| CaError::Status {
        ca: CaId::new("test"),
        step: crate::ca::error::Step::NewOrder,
        status,
        excerpt: String::new(),
        retry_after: None,
    };
    let refusals = ["alreadyReplaced", "conflict", "unauthorized", "malformed"]
        .map(|kind| refused(kind, None))
        .into_iter()
        .chain([400, 403, 404, 409].map(status));
    for refusal in refusals {
        let (said, renewed) = renew(vec![refusal]).await;
        assert_eq!(said, [true, false]);
        renewed.unwrap();
    }
}

#[tokio::test]
async fn an_order_refused_for_another_reason_or_twice_is_not_placed_again_at_once() {
    let (said, renewed) = renew(vec![refused("rejectedIdentifier", None)]).await;
    assert_eq!(said, [true]);
    assert_eq!(renewed.unwrap_err().code, ProblemCode::CaRejected);
    let twice = vec![refused("malformed", None), refused("malformed", None)];
    let (said, renewed) = renew(twice).await;
    assert_eq!(said, [true, false]);
    assert_eq!(renewed.unwrap_err().code, ProblemCode::CaRejected);
}
