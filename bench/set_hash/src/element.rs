//! Hashes of a set of images: a sum to which an image is added, or from which it is taken away, in any order.

use curve25519_dalek::ristretto::RistrettoPoint;
use curve25519_dalek::traits::Identity;

/// A sum of images.
pub trait SetHash {
    /// Adds the image, or takes it away.
    fn change(&mut self, image: &[u8], add: bool);
    /// The sum, as it would be stored.
    fn bytes(&self) -> Vec<u8>;
}

/// The numbers of 16 bits of [`LtHash`].
pub const LANES: usize = 1024;

/// LtHash16 with BLAKE3: 1024 sums modulo 2^16.
pub struct LtHash(Box<[u16; LANES]>);

impl Default for LtHash {
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl SetHash for LtHash {
    fn change(&mut self, image: &[u8], add: bool) {
        let mut output = [0; 2 * LANES];
        blake3::Hasher::new().update(image).finalize_xof().fill(&mut output);
        for (sum, bytes) in self.0.iter_mut().zip(output.as_chunks::<2>().0) {
            let lane = u16::from_le_bytes(*bytes);
            *sum = if add { sum.wrapping_add(lane) } else { sum.wrapping_sub(lane) };
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }
}

/// A multiset hash by an elliptic curve: the sum of points of ristretto255.
pub struct Curve(RistrettoPoint);

impl Default for Curve {
    fn default() -> Self {
        Self(RistrettoPoint::identity())
    }
}

impl SetHash for Curve {
    fn change(&mut self, image: &[u8], add: bool) {
        let mut output = [0; 64];
        blake3::Hasher::new().update(image).finalize_xof().fill(&mut output);
        let point = RistrettoPoint::from_uniform_bytes(&output);
        self.0 = if add { self.0 + point } else { self.0 - point };
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.compress().as_bytes().to_vec()
    }
}

/// AdHash: a sum of digests of 32 bytes modulo 2^256. Small and fast, and broken: rows with a given sum are
/// found by Wagner's algorithm for the generalized birthday problem in about 2^32 steps.
#[derive(Default)]
pub struct AdHash([u64; 4]);

impl SetHash for AdHash {
    fn change(&mut self, image: &[u8], add: bool) {
        let digest = blake3::hash(image);
        let mut carry = false;
        for (sum, bytes) in self.0.iter_mut().zip(digest.as_bytes().as_chunks::<8>().0) {
            let limb = u64::from_le_bytes(*bytes);
            let (first, second);
            (*sum, first) = if add { sum.overflowing_add(limb) } else { sum.overflowing_sub(limb) };
            let small = u64::from(carry);
            (*sum, second) = if add { sum.overflowing_add(small) } else { sum.overflowing_sub(small) };
            carry = first | second;
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|limb| limb.to_le_bytes()).collect()
    }
}
