import COpenSSL
package import LinuxSystem
import SystemPackage

/// The SHA-256 digests of OpenSSL's libcrypto.
package enum SHA256 {
    /// Bytes of a digest.
    package static let byteCount = Int(SHA256_DIGEST_LENGTH)

    /// Makes the digest of bytes.
    ///
    /// - Throws: if the configuration of this host's OpenSSL offers no SHA-256.
    package static func digest(of bytes: RawSpan) throws(SystemError) -> [UInt8] {
        var isMade = false
        let digest = [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
            isMade = bytes.withUnsafeBytes { bytes in
                let start = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
                return COpenSSL.SHA256(start, bytes.count, buffer.baseAddress) != nil
            }
            count = isMade ? byteCount : 0
        }
        guard isMade else {
            throw SystemError(
                "make a SHA-256 digest",
                .notSupported,
                reason: "OpenSSL offers none",
                advice: "check the providers in OpenSSL's configuration file (see `openssl version -d`)"
            )
        }
        return digest
    }
}
