//! The TFRecord frame: length, masked CRC-32C of the length, payload, masked CRC-32C of the payload.
//!
//! See <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>. It knows nothing of what the payload holds.

/// Bytes of a frame before its payload.
const HEAD: usize = 12;
/// Bytes of a frame behind its payload.
const TAIL: usize = 4;
/// Largest payload that is believed, 1 GiB; a damaged length would otherwise ask for any amount of memory.
const MAX_PAYLOAD: usize = 1 << 30;

/// Remainders of the reflected Castagnoli polynomial for every byte.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// Computes CRC-32C (Castagnoli).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize])
}

/// Rotates and shifts a CRC, because the CRC of data that holds its own CRC is degenerate.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes()
}

/// Returns `payload` in a frame.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), payload, &masked(payload)].concat()
}

/// Splits the first frame off `bytes`; `None` if it is cut or damaged.
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (length, check) = head.split_at(8);
    let size = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok().filter(|size| *size <= MAX_PAYLOAD)?;
    let (payload, rest) = rest.split_at_checked(size)?;
    let (tail, rest) = rest.split_at_checked(TAIL)?;
    (check == masked(length) && tail == masked(payload)).then_some((payload, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn crc32c_matches_the_published_vectors() {
        // RFC 3720 (iSCSI), appendix B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46DD_794E);
        let falling: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&falling), 0x113F_DB5C);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    proptest! {
        #[test]
        fn frames_split_where_they_were_joined_and_show_damage(
            first in prop::collection::vec(any::<u8>(), 0..40),
            second in prop::collection::vec(any::<u8>(), 0..40),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let mut bytes = frame(&first);
            let end = bytes.len();
            bytes.extend(frame(&second));
            let (payload, rest) = split(&bytes).expect("a frame");
            prop_assert_eq!(payload, &first[..]);
            prop_assert_eq!(split(rest), Some((&second[..], &[][..])));
            prop_assert_eq!(split(&bytes[..at.index(end)]), None);
            bytes[at.index(end)] ^= flip;
            prop_assert_eq!(split(&bytes), None);
        }
    }
}
