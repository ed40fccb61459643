//! Answers of the API server that several passes share.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// The last answer to each question, by a name. One answer serves all that asked before it was on its way.
#[derive(Debug)]
pub struct Answers<V>(Mutex<HashMap<String, (V, Instant)>>);

impl<V> Default for Answers<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Clone> Answers<V> {
    /// An answer that is not older than `asked`.
    ///
    /// # Errors
    ///
    /// Those of `ask`.
    pub async fn get<E>(
        &self,
        name: &str,
        asked: Instant,
        ask: impl Future<Output = Result<V, E>>,
    ) -> Result<V, E> {
        /// Far longer than a pass.
        const KEPT: Duration = Duration::from_mins(2);
        const MANY: usize = 64;
        // Held meanwhile: passes that wait for it need no request of their own.
        let mut answers = self.0.lock().await;
        if let Some((answer, _)) = answers.get(name).filter(|(_, at)| *at >= asked) {
            return Ok(answer.clone());
        }
        let at = Instant::now();
        let answer = ask.await?;
        if answers.len() >= MANY {
            answers.retain(|_, (_, at)| at.elapsed() < KEPT);
        }
        answers.insert(name.to_owned(), (answer.clone(), at));
        Ok(answer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn an_answer_serves_those_that_asked_before_it() {
        let (answers, requests) = (Answers::default(), Cell::new(0));
        let ask = async || {
            requests.set(requests.get() + 1);
            Ok::<_, Infallible>(requests.get())
        };
        let (first, second) = (Instant::now(), Instant::now());
        assert_eq!(answers.get("a", first, ask()).await.unwrap(), 1);
        assert_eq!(answers.get("a", second, ask()).await.unwrap(), 1);
        assert_eq!(answers.get("b", second, ask()).await.unwrap(), 2);
        let later = Instant::now();
        assert_eq!(answers.get("a", later, ask()).await.unwrap(), 3);
        assert_eq!(requests.get(), 3);
    }
}
