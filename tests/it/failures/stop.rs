//! Stopping ends training now and keeps the best model; the request survives whatever happens to
//! the worker.

use nix::sys::signal::Signal;

use crate::support::{
    attempts::{POINTS, QUICK, has_told, long_job, material, outcomes, weights},
    postgres::invariants,
    service::Service,
};

#[tokio::test(flavor = "multi_thread")]
async fn f18_a_stop_at_any_point_keeps_a_model_or_is_refused() {
    let service = Service::start().await;
    let _worker = service.worker("worker", &QUICK);
    let file = material(&service).await;
    let mut kept = 0;
    for (point, phase) in POINTS {
        let late = matches!(phase, Some("evaluating" | "exporting"));
        let job = long_job(&service, &file, if late { 1 } else { 1_000 }).await;
        has_told(&service, &job, point, phase).await;
        let asked = service.ask(&job, "stop").await;
        println!("stopped at {point} {phase:?}: {}", asked.status);
        if asked.status != 200 {
            let error = asked.json()["error"]["code"].clone();
            let nothing_yet = error == "not_trained" && !late;
            assert!(
                nothing_yet || error == "job_ended" && late,
                "{point}: {error}"
            );
            service.ask(&job, "cancel").await;
            service.ended(&job).await;
            continue;
        }
        let ended = service.ended(&job).await;
        assert_eq!(outcomes(&ended), ["succeeded"], "{ended}");
        assert!(!weights(&service, &ended).await.is_empty());
        kept += 1;
    }
    assert!(kept >= 3, "{kept}");
    invariants(&service.pool().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_job_ends_as_a_success_with_its_best_model() {
    let service = Service::start().await;
    let first = service.worker("first", &QUICK);
    let file = material(&service).await;
    let job = long_job(&service, &file, 1_000).await;
    service.has_checkpoint(&job).await;
    let waiting = long_job(&service, &file, 1_000).await;
    let refused = service
        .ask(&waiting, "stop")
        .await
        .error(409, "not_trained");
    assert!(refused.contains("`queued`"), "{refused}");
    service.ask(&waiting, "cancel").await.ok();

    let asked = service.ask(&job, "stop").await.ok();
    assert!(asked["stop_requested_at"].is_u64(), "{asked}");
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["succeeded"], "{ended}");
    let (step, steps) = (&ended["progress"]["step"], &ended["progress"]["n_steps"]);
    assert!(step.as_u64() < steps.as_u64(), "{ended}");
    let path = service.path(&job);
    let report = service.get(&format!("{path}/report")).await.ok();
    assert_eq!(report["step"], ended["metrics"]["step"], "{report}");
    assert!(!weights(&service, &ended).await.is_empty());
    let events = service.get(&format!("{path}/events?limit=100")).await.ok();
    let early = |event: &serde_json::Value| event["data"]["stopped_early"] == true;
    assert!(
        events["data"].as_array().unwrap().iter().any(early),
        "{events}"
    );
    // What there was when it was stopped has been measured.
    let metrics = service.get(&format!("{path}/metrics")).await.ok();
    assert!(metrics.to_string().contains("evaluations"), "{metrics}");
    service.ask(&job, "stop").await.error(409, "job_ended");

    // Its worker dies before it hears of it: the next one finishes the job.
    let job = long_job(&service, &file, 1_000).await;
    service.has_checkpoint(&job).await;
    first.signal(Signal::SIGKILL);
    drop(first);
    service.ask(&job, "stop").await.ok();
    let _second = service.worker("second", &QUICK);
    let ended = service.ended(&job).await;
    assert_eq!(outcomes(&ended), ["lost", "succeeded"], "{ended}");
    invariants(&service.pool().await).await;
}
