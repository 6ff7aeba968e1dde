//! Why an append, or one attempt of it, failed.

use crate::connect::Unavailable;

/// Why an event was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The outcome is unknown if `maybe_stored`, else nothing was stored. Temporary: to try the same event again is
    /// safe. The source is the failure of the last attempt.
    #[error("the log did not acknowledge in time: {source}")]
    Unavailable { source: AttemptError, maybe_stored: bool },
    /// The log has reached its size limit. Nothing was stored.
    #[error("the log is full")]
    Full,
    /// The chat of a first event has an event already, and it is not this one. Nothing was stored.
    #[error("the chat exists in the log already")]
    Exists,
    /// Larger than the server takes. Nothing was stored.
    #[error("the event is larger than the log takes")]
    TooLarge,
}

/// Why one attempt failed. The next one may succeed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    #[error("not connected")]
    NotConnected,
    #[error("no acknowledgement")]
    NoAnswer,
    #[error("the log is full")]
    Full,
    #[error("the log has no leader")]
    NoLeader,
    #[error("status {0}")]
    Status(u16),
    /// Elections, overload, or checks of another append to the same chat in flight.
    #[error("{description} ({code})")]
    Refused { code: u64, description: String },
    #[error("an acknowledgement without a sequence")]
    NoSequence,
    #[error("an acknowledgement that can't be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// The chat has an event, and the log could not be asked which one it is.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<AppendError> for Unavailable {
    fn from(error: AppendError) -> Self {
        Self::new(error)
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, io};

    use super::*;

    #[test]
    fn an_append_that_failed_tells_the_first_cause() {
        let cause = io::Error::from(io::ErrorKind::ConnectionReset);
        let source = AttemptError::from(Unavailable::new(cause));
        let error = Unavailable::from(AppendError::Unavailable { source, maybe_stored: true });
        let mut last: &dyn Error = &error;
        while let Some(source) = last.source() {
            last = source;
        }
        assert!(last.to_string().contains("connection reset"), "{last:?}");
        assert!(error.to_string().contains("connection reset"), "the line in the log says it, too: {error}");
    }
}
