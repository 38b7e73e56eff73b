//! The fuzz targets of the link on stable: random data, and the seeds that are kept.

#[path = "../../fuzz/harness/link.rs"]
mod link;

mod common;

use bytes::BytesMut;
use common::frames::any_frame;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn link_decoder(data in vec(any::<u8>(), 0..300)) {
        link::link_decoder(&data);
    }

    #[test]
    fn link_decoder_of_frames(piece in any::<u8>(), frames in vec(any_frame(), 0..4), flip in any::<(prop::sample::Index, u8)>()) {
        let mut bytes = BytesMut::from(&[piece][..]);
        for frame in &frames {
            proto::codec::encode(frame, &mut bytes).unwrap();
        }
        let at = flip.0.index(bytes.len());
        bytes[at] ^= flip.1;
        link::link_decoder(&bytes);
    }

    #[test]
    fn mux_side(data in vec(any::<u8>(), 0..1500)) {
        link::mux_side(&data);
    }

    #[test]
    fn server_side(data in vec(any::<u8>(), 0..1500)) {
        link::server_side(&data);
    }
}

#[test]
fn the_kept_seeds() {
    for (target, run) in [
        ("link_decoder", link::link_decoder as fn(&[u8])),
        ("mux_side", link::mux_side),
        ("server_side", link::server_side),
    ] {
        let dir = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for entry in std::fs::read_dir(&dir).expect("the corpus is part of the repository") {
            run(&std::fs::read(entry.expect("readable").path()).expect("readable"));
            count += 1;
        }
        assert!(count > 0, "{dir} is empty");
    }
}
