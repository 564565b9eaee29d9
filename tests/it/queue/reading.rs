//! Reads of a tenant: its own rows, page by page, and changes.

use std::{collections::BTreeSet, time::Duration};

use rehead::{
    db::{
        self, Page, channel,
        controls::{self, Answer},
        events, files,
        jobs::{self, Created, Filter},
    },
    domain::job::{Control, JobStatus},
};

use super::status;
use crate::support::queue::Queue;

#[tokio::test]
async fn a_tenant_sees_only_its_own_rows() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let job = queue.job().await;
    let (other, _) = queue.tenant("other").await;
    assert!(jobs::get(pool, other, job).await.unwrap().is_none());
    assert!(matches!(
        controls::ask(pool, other, job, Control::Cancel)
            .await
            .unwrap(),
        Answer::NotFound
    ));
    assert!(
        events::after(pool, other, job, 0, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(files::get(pool, other, queue.file).await.unwrap().is_none());
    assert_eq!(
        files::delete(pool, other, queue.file).await.unwrap(),
        files::Deleted::NotFound
    );
    let page = Page {
        after: None,
        limit: 10,
        descending: true,
    };
    assert!(
        jobs::list(pool, other, page, &Filter::default())
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    let mut foreign = queue.new_job();
    foreign.tenant = other;
    assert!(matches!(
        jobs::create(pool, &foreign).await.unwrap(),
        Created::InputGone
    ));
    assert_eq!(status(&queue, job).await, JobStatus::Queued);
}

#[tokio::test]
async fn lists_page_and_filter() {
    let queue = Queue::start().await;
    let pool = queue.pool();
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(queue.job().await);
    }
    queue.claim().await.unwrap();
    let all = Filter::default();
    let mut seen = Vec::new();
    let mut page = Page {
        after: None,
        limit: 2,
        descending: true,
    };
    loop {
        let slice = jobs::list(pool, queue.tenant, page, &all).await.unwrap();
        seen.extend(slice.rows.iter().map(|job| job.id));
        page.after = seen.last().copied();
        if !slice.has_more {
            break;
        }
    }
    made.reverse();
    assert_eq!(seen, made);
    let page = Page {
        after: None,
        limit: 10,
        descending: false,
    };
    let mut filter = Filter {
        status: Some(JobStatus::Queued),
        model: Some("net".to_owned()),
        ..all
    };
    filter.metadata.insert("team".to_owned(), "zoo".to_owned());
    assert_eq!(
        jobs::list(pool, queue.tenant, page, &filter)
            .await
            .unwrap()
            .rows
            .len(),
        4
    );
    filter
        .metadata
        .insert("team".to_owned(), "other".to_owned());
    assert!(
        jobs::list(pool, queue.tenant, page, &filter)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    let events = events::list(
        pool,
        queue.tenant,
        made[0],
        Page {
            after: None,
            limit: 1,
            descending: true,
        },
    )
    .await
    .unwrap();
    assert_eq!(
        (events.rows[0].kind.as_str(), events.has_more),
        ("queued", true)
    );
    let page = Page {
        after: Some(events.rows[0].id),
        limit: 5,
        descending: true,
    };
    let events = events::list(pool, queue.tenant, made[0], page)
        .await
        .unwrap();
    assert_eq!(
        (events.rows[0].kind.as_str(), events.has_more),
        ("created", false)
    );
}

#[tokio::test]
async fn changes_are_notified() {
    let queue = Queue::start().await;
    let channels = [
        channel::WORK,
        channel::CONTROL,
        channel::FILE,
        channel::MODEL,
    ];
    let mut listener = db::listen(queue.pool(), &channels).await.unwrap();
    let job = queue.job().await;
    queue.claim().await.unwrap();
    controls::ask(queue.pool(), queue.tenant, job, Control::Cancel)
        .await
        .unwrap();
    let file = queue.data_set(queue.tenant).await;
    queue.base_model(queue.tenant, "second").await;
    let id = job.to_string();
    let expected = [
        (channel::WORK, "train"),
        (channel::CONTROL, id.as_str()),
        (channel::WORK, "validate"),
        (channel::FILE, &file.to_string()),
        (channel::WORK, "import"),
        (channel::MODEL, "second"),
    ];
    let mut heard = BTreeSet::new();
    for _ in &expected {
        let told = tokio::time::timeout(Duration::from_secs(5), listener.recv())
            .await
            .unwrap()
            .unwrap();
        heard.insert((told.channel().to_owned(), told.payload().to_owned()));
    }
    let expected = expected.map(|(channel, payload)| (channel.to_owned(), payload.to_owned()));
    assert_eq!(heard, BTreeSet::from(expected));
}
