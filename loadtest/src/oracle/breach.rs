//! Broken promises: which promise, and a line that says what broke it.

use std::fmt;

/// The promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Breach {
    /// An acked message that a device or the history never got.
    Lost,
    /// The same event twice, or the same uuid under two sequences.
    Duplicated,
    /// A lower sequence after a higher one.
    OutOfOrder,
    /// `prev` is not what the device had.
    Gap,
    /// Two devices, or a device and the history, saw different things at one sequence.
    Disagreement,
    /// A refused command that took effect.
    Undead,
    /// Two answers that contradict each other, or one to nothing.
    WrongAck,
    /// A message to someone who was no member.
    Trespass,
    /// A message that nobody sent.
    Phantom,
    /// A send without a final answer at the end.
    Unanswered,
    /// Anything else that the contract forbids.
    Protocol,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub breach: Breach,
    pub text: String,
}

impl Violation {
    pub(crate) fn new(breach: Breach, text: String) -> Self {
        Self { breach, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.breach, self.text)
    }
}
