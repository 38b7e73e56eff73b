//! model engine (next commit).
