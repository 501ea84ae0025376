import CShims
import Glibc
import SystemPackage

extension StreamSocket {
    /// Bytes that came with descriptors.
    public struct DescriptorMessage: ~Copyable, Sendable {
        /// What was said.
        public let bytes: [UInt8]
        /// How many descriptors came with it; all but the first are closed.
        public let descriptorCount: Int
        private let first: OwnedDescriptor?

        init(bytes: [UInt8], descriptorCount: Int, first: consuming OwnedDescriptor?) {
            self.bytes = bytes
            self.descriptorCount = descriptorCount
            self.first = first
        }

        /// Takes the first descriptor as the userfaultfd it is said to be.
        ///
        /// - Parameter served: features that it may have although they raise events.
        /// - Throws: ``HandedDescriptorError`` when it is missing or something else.
        public consuming func takeUserfaultfd(
            serving served: Userfaultfd.Features = []
        ) throws(HandedDescriptorError) -> Userfaultfd {
            guard let first else { throw HandedDescriptorError(reason: "no descriptor came with the message") }
            return try Userfaultfd(handed: first, serving: served)
        }
    }

    /// Receives a message of at most `maxBytes` and the descriptors that came with it, over a Unix socket.
    public func receiveDescriptors(maxBytes: Int) throws(SystemError) -> DescriptorMessage {
        var bytes = [UInt8](repeating: 0, count: maxBytes)
        var descriptors = [CInt](repeating: -1, count: 16)
        var count: CInt = 0
        let received: Int
        do throws(Errno) {
            received = try kernel(.recvmsg) {
                shim_receive_descriptors(
                    descriptor.raw,
                    &bytes,
                    maxBytes,
                    &descriptors,
                    CInt(descriptors.count),
                    &count
                )
            }
        } catch .resourceTemporarilyUnavailable {
            throw SystemError("receive a descriptor from \(peer)", .timedOut)
        } catch {
            throw SystemError("receive a descriptor from \(peer)", error)
        }
        for extra in descriptors[..<Int(count)].dropFirst() { _ = OwnedDescriptor(extra) }
        return DescriptorMessage(
            bytes: Array(bytes[..<received]),
            descriptorCount: Int(count),
            first: count > 0 ? OwnedDescriptor(descriptors[0]) : nil
        )
    }

    /// Sends a message and a copy of a userfaultfd, over a Unix socket.
    public func send(_ bytes: [UInt8], with userfaultfd: borrowing Userfaultfd) throws(SystemError) {
        let handed = userfaultfd.descriptor.raw
        do throws(Errno) {
            _ = try kernel(.sendmsg) { shim_send_descriptor(descriptor.raw, bytes, bytes.count, handed) }
        } catch {
            throw SystemError("send a userfaultfd to \(peer)", error)
        }
    }
}

/// A descriptor that was handed over and is not what it was said to be.
public struct HandedDescriptorError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What is wrong with it.
    public let reason: String

    /// One line.
    public var description: String { reason }
}

extension Userfaultfd {
    /// Features whose events or signals a handler that was not made for them cannot serve.
    private static let unserved: Features = [.eventFork, .eventRemap, .eventRemove, .eventUnmap, .sigbus]

    /// Takes over a descriptor that another process says is its userfaultfd; makes it non-blocking.
    init(
        handed descriptor: consuming OwnedDescriptor,
        serving served: Features = []
    ) throws(HandedDescriptorError) {
        // fs/userfaultfd.c prints "API:\t<api>:<features of this context>:<features of the kernel>", hexadecimal.
        let info = ProcessFile.text("/proc/self/fdinfo/\(descriptor.raw)") ?? ""
        guard let line = info.split(separator: "\n").first(where: { $0.hasPrefix("API:") }),
            let field = line.split(whereSeparator: { $0 == ":" || $0 == "\t" }).dropFirst(2).first,
            let bits = UInt64(field, radix: 16)
        else { throw HandedDescriptorError(reason: "the descriptor is no userfaultfd") }
        let unserved = Features(rawValue: bits).intersection(Userfaultfd.unserved.subtracting(served))
        guard unserved.isEmpty else {
            throw HandedDescriptorError(
                reason: "the userfaultfd has the features \(unserved), which are not served; open it without them"
            )
        }
        let raw = descriptor.raw
        guard shim_set_nonblocking(raw) >= 0 else {
            throw HandedDescriptorError(reason: "the userfaultfd cannot be made non-blocking")
        }
        self.init(adopting: descriptor)
    }
}
