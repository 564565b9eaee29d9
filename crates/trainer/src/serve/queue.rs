//! Images that wait for a thread.

use std::{
    collections::VecDeque,
    mem,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::domain::{
    progress::Failure,
    work::{ImageOutcome, Predict, Predictions},
};

/// Images that are read ahead; further requests wait in the pipe.
const READ_AHEAD: usize = 256;

/// A queue of images.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Notified of everything.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Image>,
    is_closed: bool,
    /// Threads that run images.
    busy: usize,
    /// True while the first thread is one of them.
    is_first_busy: bool,
}

/// Images for one model, which run together.
pub(super) struct Taken {
    pub images: Vec<Image>,
    /// True for one image that nothing waits behind, while no thread is busy.
    pub is_alone: bool,
}

impl Queue {
    /// Adds the images of a request, once there is room. Returns `false` when the queue is closed.
    pub(super) fn add(&self, request: Predict) -> bool {
        let mut state = self.lock();
        while state.waiting.len() >= READ_AHEAD && !state.is_closed {
            state = self.wait(state);
        }
        if state.is_closed {
            return false;
        }
        let request = Arc::new(Request::new(request));
        let images = (0..request.images.len()).map(|place| Image {
            request: Arc::clone(&request),
            place,
        });
        state.waiting.extend(images);
        self.changed.notify_all();
        true
    }

    /// The next image and others for the same model, `most` at most. Waits for one; `None` when the
    /// queue is closed and empty. `done` follows. Threads other than the first only help it: each
    /// that ran an image alone would leave threads of torch's behind, which spin for a while.
    pub(super) fn take(&self, most: usize, is_first: bool) -> Option<Taken> {
        let mut state = self.lock();
        while state.waiting.is_empty() || !(is_first || state.is_first_busy) {
            if state.waiting.is_empty() && state.is_closed {
                return None;
            }
            state = self.wait(state);
        }
        let bundle = state.waiting[0].bundle().to_owned();
        let mut images = Vec::with_capacity(most);
        let mut others = VecDeque::with_capacity(state.waiting.len());
        for image in mem::take(&mut state.waiting) {
            if images.len() < most && image.bundle() == bundle {
                images.push(image);
            } else {
                others.push_back(image);
            }
        }
        state.waiting = others;
        let is_alone = state.busy == 0 && images.len() == 1 && state.waiting.is_empty();
        state.busy += 1;
        state.is_first_busy |= is_first;
        self.changed.notify_all();
        Some(Taken { images, is_alone })
    }

    /// Notes that what was taken has run.
    pub(super) fn done(&self, is_first: bool) {
        let mut state = self.lock();
        state.busy -= 1;
        state.is_first_busy &= !is_first;
    }

    /// Takes no more requests.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// The same, and drops what waits: without the first thread, the others would wait for ever.
    pub(super) fn abandon(&self) {
        self.lock().waiting.clear();
        self.close();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One image of a request.
pub(super) struct Image {
    request: Arc<Request>,
    place: usize,
}

impl Image {
    /// Folder of the model.
    pub(super) fn bundle(&self) -> &Path {
        &self.request.bundle
    }

    pub(super) fn path(&self) -> &Path {
        &self.request.images[self.place]
    }
}

/// A request, and what is known of its images.
pub(super) struct Request {
    pub id: u64,
    bundle: PathBuf,
    images: Vec<PathBuf>,
    found: Mutex<Found>,
}

struct Found {
    labels: Vec<String>,
    outcomes: Vec<Option<ImageOutcome>>,
    failure: Option<Failure>,
    left: usize,
}

impl Request {
    fn new(request: Predict) -> Self {
        let count = request.images.len();
        Self {
            id: request.id,
            bundle: request.bundle,
            images: request.images,
            found: Mutex::new(Found {
                labels: Vec::new(),
                outcomes: vec![None; count],
                failure: None,
                left: count,
            }),
        }
    }

    /// The answer, once all images have an outcome: the first failure, or predictions.
    pub(super) fn outcome(&self) -> Result<Predictions, Failure> {
        let mut found = self.found();
        match found.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(Predictions {
                labels: mem::take(&mut found.labels),
                images: found.outcomes.iter_mut().filter_map(Option::take).collect(),
            }),
        }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        // A panic cannot leave it half changed.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Labels of a model, and outcomes of images in their order; or why there are none.
pub(super) type Outcomes = Result<(Vec<String>, Vec<ImageOutcome>), Failure>;

/// Hands outcomes to the images' requests. Returns those that have all of theirs now.
pub(super) fn hand_out(images: Vec<Image>, outcomes: Outcomes) -> Vec<Arc<Request>> {
    let (labels, mut outcomes) = match outcomes {
        Ok((labels, outcomes)) => (Ok(labels), outcomes.into_iter()),
        Err(failure) => (Err(failure), Vec::new().into_iter()),
    };
    let complete = images.into_iter().filter_map(|Image { request, place }| {
        let mut found = request.found();
        match &labels {
            Ok(labels) => {
                found.labels.clone_from(labels);
                found.outcomes[place] = outcomes.next();
            }
            Err(failure) => found.failure = Some(failure.clone()),
        }
        found.left -= 1;
        let is_complete = found.left == 0;
        drop(found);
        is_complete.then_some(request)
    });
    complete.collect()
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn request(id: u64, bundle: &str, images: usize) -> Predict {
        Predict {
            id,
            bundle: bundle.into(),
            images: (0..images)
                .map(|image| format!("{id}-{image}").into())
                .collect(),
        }
    }

    fn names(taken: &Taken) -> Vec<&str> {
        let names = taken.images.iter().map(|image| image.path().to_str());
        names.flatten().collect()
    }

    fn values(count: usize) -> Outcomes {
        let outcomes = (0..count).map(|value| ImageOutcome::Value(value as f64));
        Ok((vec!["label".to_owned()], outcomes.collect()))
    }

    #[test]
    fn images_of_one_model_are_taken_together_and_requests_answered_whole() {
        let queue = Queue::default();
        for (id, bundle, images) in [(1, "a", 3), (2, "b", 1), (3, "a", 2)] {
            assert!(queue.add(request(id, bundle, images)));
        }
        let first = queue.take(4, true).unwrap();
        assert_eq!(names(&first), ["1-0", "1-1", "1-2", "3-0"]);
        let second = queue.take(4, false).unwrap();
        assert_eq!(names(&second), ["2-0"]);
        assert!(!second.is_alone, "others run, and wait");
        let third = queue.take(4, false).unwrap();
        assert_eq!(names(&third), ["3-1"]);

        let ended = hand_out(first.images, values(4));
        assert_eq!(ended.iter().map(|one| one.id).collect::<Vec<_>>(), [1]);
        let predictions = ended[0].outcome().unwrap();
        let expected = [0.0, 1.0, 2.0].map(ImageOutcome::Value);
        assert_eq!(
            (predictions.images.as_slice(), predictions.labels.len()),
            (&expected[..], 1)
        );
        let failure = Failure::permanent("torch", "it failed");
        let ended = hand_out(third.images, Err(failure));
        assert_eq!(ended[0].outcome().unwrap_err().code, "torch");
        assert_eq!(hand_out(second.images, values(1))[0].id, 2);

        for is_first in [true, false, false] {
            queue.done(is_first);
        }
        queue.add(request(4, "a", 1));
        assert!(queue.take(4, true).unwrap().is_alone);
        queue.close();
        assert!(queue.take(4, true).is_none() && queue.take(4, false).is_none());
        assert!(!queue.add(request(5, "a", 1)));
    }

    #[test]
    fn an_abandoned_queue_lets_every_thread_go() {
        let queue = Arc::new(Queue::default());
        queue.add(request(1, "a", 3));
        let helped = Arc::clone(&queue);
        let helping = thread::spawn(move || helped.take(4, false).is_none());
        thread::sleep(Duration::from_millis(50));
        assert!(!helping.is_finished(), "it waits for the first thread");
        queue.abandon();
        assert!(helping.join().unwrap());
    }

    #[test]
    fn a_full_queue_takes_no_more_until_some_are_taken() {
        let queue = Arc::new(Queue::default());
        queue.add(request(1, "a", READ_AHEAD));
        let filled = Arc::clone(&queue);
        let adding = thread::spawn(move || filled.add(request(2, "a", 1)));
        thread::sleep(Duration::from_millis(50));
        assert!(!adding.is_finished());
        assert_eq!(queue.take(4, true).unwrap().images.len(), 4);
        assert!(adding.join().unwrap());
    }
}
