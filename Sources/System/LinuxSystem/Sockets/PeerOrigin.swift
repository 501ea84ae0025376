import CShims
import Glibc

/// Where a connection comes from, as far as that distinguishes peers: a host's address, or a process of this host.
package enum PeerOrigin: Hashable, Sendable {
    /// An IPv4 address, or the first 64 bits of an IPv6 address, which belong to one host.
    case host(UInt64)
    /// A process of this host, and the user that it ran as when it connected.
    case process(id: Int32, user: UInt32)
    /// The peer disconnected before its origin could be read.
    case unknown

    init(ofUnixPeer descriptor: CInt) {
        let id = shim_peer_process(descriptor)
        self = id < 0 ? .unknown : .process(id: id, user: UInt32(bitPattern: shim_peer_user(descriptor)))
    }

    init(ofTCPPeer descriptor: CInt) {
        var name = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        self = withUnsafeMutableBytes(of: &name) { bytes in
            guard let address = bytes.assumingMemoryBound(to: sockaddr.self).baseAddress,
                getpeername(descriptor, address, &length) == 0
            else { return .unknown }
            // sockaddr_in holds the address after family and port; sockaddr_in6 has 4 bytes of flow information
            // between.
            guard address.pointee.sa_family == sa_family_t(AF_INET6) else {
                return .host(UInt64(bytes.load(fromByteOffset: 4, as: UInt32.self)))
            }
            let isMapped = (8..<18).allSatisfy { bytes[$0] == 0 } && bytes[18] == 0xff && bytes[19] == 0xff
            return isMapped
                ? .host(UInt64(bytes.load(fromByteOffset: 20, as: UInt32.self)))
                : .host(bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        }
    }
}
