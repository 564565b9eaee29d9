//! Connections of the pool.

use std::pin::pin;

use futures_util::poll;
use rehead::db;

use crate::support::queue::Queue;

/// A client that hangs up cancels what the server does for it, at any point.
#[tokio::test]
async fn a_cancelled_begin_leaves_no_transaction_behind() {
    let queue = Queue::start().await;
    let pool = db::connect_beside(queue.pool(), 1).await.unwrap();
    let mut cancelled = 0;
    for polls in (1..20).cycle().take(400) {
        let mut beginning = pin!(db::begin(&pool));
        let mut is_pending = true;
        for _ in 0..polls {
            is_pending = poll!(beginning.as_mut()).is_pending();
            if !is_pending {
                break;
            }
            tokio::task::yield_now().await;
        }
        cancelled += u32::from(is_pending);
        beginning.set(db::begin(&pool));
        // Postgres refuses it outside of a transaction.
        let inside = sqlx::raw_sql("savepoint inside").execute(&pool).await;
        assert!(
            inside.is_err(),
            "in a transaction after {polls} polls of its begin"
        );
    }
    assert!(cancelled > 0, "nothing was cancelled");
}
