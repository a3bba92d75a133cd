//! Generates, signs and verifies as it is told on standard input; lines of hexadecimal words, one answer a line.
//!
//!     generate                                -> SECRET PUBLIC
//!     sign SECRET MESSAGE                     -> SIGNATURE, or "bad" when SECRET is no key
//!     verify PUBLIC MESSAGE SIGNATURE         -> "true" or "false"
//!
//! Messages are hashed as in FALCON's round 3: SHAKE-256 over nonce and message, nothing of the key, no context.

use fn_dsa::{
    sign_key_size, signature_size, vrfy_key_size, CryptoRng, KeyPairGenerator, KeyPairGeneratorStandard, RngCore,
    RngError, SigningKey, SigningKeyStandard, VerifyingKey, VerifyingKeyStandard, DOMAIN_NONE, FN_DSA_LOGN_1024,
    HASH_ID_ORIGINAL_FALCON,
};
use std::io::{BufRead, Write};

/// The operating system's random source.
struct System;

impl CryptoRng for System {}

impl RngCore for System {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }
    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        getrandom::getrandom(bytes).expect("the system gives no random bytes");
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), RngError> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

fn bytes(word: &str) -> Vec<u8> {
    (0..word.len() / 2).map(|i| u8::from_str_radix(&word[2 * i..2 * i + 2], 16).expect("hexadecimal")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(words: &[&str]) -> String {
    match words {
        ["generate"] => {
            let mut secret = vec![0; sign_key_size(FN_DSA_LOGN_1024)];
            let mut public = vec![0; vrfy_key_size(FN_DSA_LOGN_1024)];
            KeyPairGeneratorStandard::default().keygen(FN_DSA_LOGN_1024, &mut System, &mut secret, &mut public);
            format!("{} {}", hex(&secret), hex(&public))
        }
        ["sign", secret, message] => match SigningKeyStandard::decode(&bytes(secret)) {
            Some(mut key) => {
                let mut signature = vec![0; signature_size(key.get_logn())];
                key.sign(&mut System, &DOMAIN_NONE, &HASH_ID_ORIGINAL_FALCON, &bytes(message), &mut signature);
                hex(&signature)
            }
            None => "bad".into(),
        },
        ["verify", public, message, signature] => VerifyingKeyStandard::decode(&bytes(public))
            .is_some_and(|key| {
                key.verify(&bytes(signature), &DOMAIN_NONE, &HASH_ID_ORIGINAL_FALCON, &bytes(message))
            })
            .to_string(),
        _ => panic!("generate, sign or verify, not {words:?}"),
    }
}

fn main() {
    let (input, mut output) = (std::io::stdin(), std::io::stdout());
    for line in input.lock().lines() {
        let line = line.expect("standard input");
        let words: Vec<&str> = line.split(' ').collect();
        writeln!(output, "{}", answer(&words)).and_then(|()| output.flush()).expect("standard output");
    }
}
