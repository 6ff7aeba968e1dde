//! Results of measured runs: how they are kept, printed, drawn and compared.

pub mod chart;
pub mod compare;
pub mod html;
pub mod outcome;
