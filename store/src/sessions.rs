//! sessions engine (next commit).
