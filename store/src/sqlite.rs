//! sqlite engine (next commit).
