//! Publishes events, and remembers the last of them only.

use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};

/// Publishes events through a [`Recorder`], which folds equal ones. For each event it looks at all of the last six minutes, and it keeps
/// them: if thousands of objects become Ready at once, the CPU time of an event grows with the number of events before it.
pub struct Events {
    client: Client,
    reporter: Reporter,
    current: Mutex<(Recorder, usize)>,
}

impl Events {
    /// A recorder remembers so many events at most.
    const REMEMBERED: usize = 256;

    /// Has published nothing yet.
    #[must_use]
    pub fn new(client: Client, reporter: Reporter) -> Self {
        let recorder = Recorder::new(client.clone(), reporter.clone());
        Self { client, reporter, current: Mutex::new((recorder, 0)) }
    }

    /// Publishes an event. Equal ones are folded until so many have been published.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn publish(&self, event: &Event, regarding: &ObjectReference) -> Result<(), kube::Error> {
        self.recorder().publish(event, regarding).await
    }

    fn recorder(&self) -> Recorder {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1 == Self::REMEMBERED {
            *current = (Recorder::new(self.client.clone(), self.reporter.clone()), 0);
        }
        current.1 += 1;
        current.0.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use http::{Method, Request, Response};
    use kube::client::Body;
    use kube::runtime::events::EventType;
    use tower::service_fn;

    use super::*;

    /// Events, and the methods of the requests that they make.
    fn events() -> (Events, Arc<Mutex<Vec<Method>>>) {
        let requests = Arc::<Mutex<Vec<Method>>>::default();
        let seen = requests.clone();
        let service = service_fn(move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                seen.lock().unwrap().push(request.method().clone());
                let event = br#"{"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "eventTime": null}"#;
                Ok::<_, std::io::Error>(Response::new(Body::from(event.to_vec())))
            }
        });
        (Events::new(Client::new(service, "default"), "operator".into()), requests)
    }

    async fn publish(events: &Events, action: &str) {
        let event = Event {
            type_: EventType::Normal,
            reason: "Ready".into(),
            note: None,
            action: action.into(),
            secondary: None,
        };
        let regarding = ObjectReference { name: Some("app".into()), ..ObjectReference::default() };
        events.publish(&event, &regarding).await.unwrap();
    }

    #[tokio::test]
    async fn equal_events_are_folded_while_they_are_remembered() {
        let (events, requests) = events();
        publish(&events, "the same").await;
        publish(&events, "the same").await;
        for number in 2..Events::REMEMBERED {
            publish(&events, &number.to_string()).await;
        }
        let made = |method| requests.lock().unwrap().iter().filter(|made| **made == method).count();
        assert_eq!((made(Method::POST), made(Method::PATCH)), (Events::REMEMBERED - 1, 1));
        publish(&events, "the same").await;
        assert_eq!((made(Method::POST), made(Method::PATCH)), (Events::REMEMBERED, 1));
    }
}
