//! Ids shown to clients: a row's position under a keyed 64-bit permutation.
//!
//! The permutation is the block cipher Speck64/128 (Beaulieu et al., 2013): small, invertible, and
//! the id of one message says nothing about the number of others. It is no protection of content.

const ROUNDS: usize = 27;

/// The round keys. Made from the secret in the store's meta table.
#[derive(Clone)]
pub struct PositionKey {
    rounds: [u32; ROUNDS],
}

impl std::fmt::Debug for PositionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PositionKey(..)")
    }
}

impl PositionKey {
    /// Expands a secret.
    pub fn new(secret: [u8; 16]) -> Self {
        let word =
            |i: usize| u32::from_le_bytes([secret[i], secret[i + 1], secret[i + 2], secret[i + 3]]);
        let mut k = word(0);
        let mut l = [word(4), word(8), word(12)];
        let mut rounds = [0; ROUNDS];
        for (i, round) in rounds.iter_mut().enumerate() {
            *round = k;
            let next = k.wrapping_add(l[i % 3].rotate_right(8)) ^ (i as u32);
            l[i % 3] = next;
            k = k.rotate_left(3) ^ next;
        }
        PositionKey { rounds }
    }

    /// The id of a position.
    pub fn encode(&self, position: u64) -> u64 {
        let (mut x, mut y) = ((position >> 32) as u32, position as u32);
        for k in self.rounds {
            x = x.rotate_right(8).wrapping_add(y) ^ k;
            y = y.rotate_left(3) ^ x;
        }
        u64::from(x) << 32 | u64::from(y)
    }

    /// The position of an id. Any id decodes to something; whether such a row exists is for the
    /// store to say.
    pub fn decode(&self, id: u64) -> u64 {
        let (mut x, mut y) = ((id >> 32) as u32, id as u32);
        for k in self.rounds.iter().rev() {
            y = (y ^ x).rotate_right(3);
            x = (x ^ k).wrapping_sub(y).rotate_left(8);
        }
        u64::from(x) << 32 | u64::from(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_vector() {
        // Speck64/128 of the paper: key 1b1a1918 13121110 0b0a0908 03020100.
        let mut secret = [0; 16];
        for (chunk, word) in
            secret
                .chunks_mut(4)
                .zip([0x0302_0100_u32, 0x0b0a_0908, 0x1312_1110, 0x1b1a_1918])
        {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let key = PositionKey::new(secret);
        assert_eq!(key.encode(0x3b72_6574_7475_432d), 0x8c6f_a548_454e_028b);
        assert_eq!(key.decode(0x8c6f_a548_454e_028b), 0x3b72_6574_7475_432d);
    }

    #[test]
    fn goes_both_ways() {
        let key = PositionKey::new(*b"0123456789abcdef");
        for position in (0..10_000).chain([u64::MAX, u64::MAX - 1, 1 << 32, 1 << 63]) {
            assert_eq!(key.decode(key.encode(position)), position);
        }
        assert_ne!(
            key.encode(1),
            PositionKey::new(*b"0123456789abcdeF").encode(1)
        );
    }
}
