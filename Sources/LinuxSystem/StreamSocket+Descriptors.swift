import CShims
import Glibc
import SystemPackage

extension StreamSocket {
    /// Bytes that came with descriptors.
    public struct DescriptorMessage: ~Copyable, Sendable {
        /// What was said.
        public let bytes: [UInt8]
        private let first: OwnedDescriptor?
        private let others: [Handed]

        /// A descriptor in an array, which takes no values that cannot be copied.
        fileprivate final class Handed: Sendable {
            let descriptor: OwnedDescriptor
            init(_ raw: CInt) { descriptor = OwnedDescriptor(raw) }
        }

        fileprivate init(bytes: [UInt8], first: consuming OwnedDescriptor?, others: [Handed]) {
            self.bytes = bytes
            self.first = first
            self.others = others
        }

        /// How many descriptors came with it; of more than ``maxDescriptors`` one more than that is counted. Those that
        /// are not taken are closed with the message.
        public var descriptorCount: Int { first == nil ? 0 : 1 + others.count }

        /// Descriptors that one message can bring.
        public static let maxDescriptors = 16

        /// Maps pages of a memory file that came behind the first descriptor.
        ///
        /// - Parameters:
        ///   - number: which of the descriptors it is, counted from the first, which is 0.
        ///   - offset: where in the file the pages begin, in bytes; a multiple of their size.
        ///   - range: how many pages of which size.
        /// - Throws: ``HandedDescriptorError`` when it is missing, something else, or does not hold these pages.
        public func alias(
            of number: Int,
            from offset: UInt64,
            like range: PageRange
        ) throws(HandedDescriptorError) -> MemoryAlias {
            guard number > 0, number <= others.count else {
                throw HandedDescriptorError(reason: "no descriptor \(number) came with the message")
            }
            return try MemoryAlias(of: others[number - 1].descriptor, number: number, from: offset, like: range)
        }

        /// Which file a descriptor behind the first stands for: two descriptors may stand for the same.
        public func identity(of number: Int) throws(HandedDescriptorError) -> FileIdentity {
            var status = stat()
            guard number > 0, number <= others.count, fstat(others[number - 1].descriptor.raw, &status) == 0 else {
                throw HandedDescriptorError(reason: "no descriptor \(number) came with the message")
            }
            return FileIdentity(device: status.st_dev, number: status.st_ino)
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

    /// What a file is told from others by.
    public struct FileIdentity: Hashable, Sendable {
        fileprivate let device: dev_t
        fileprivate let number: ino_t
    }

    /// Receives a message of at most `maxBytes` and the descriptors that came with it, over a Unix socket.
    public func receiveDescriptors(maxBytes: Int) throws(SystemError) -> DescriptorMessage {
        var bytes = [UInt8](repeating: 0, count: maxBytes)
        var descriptors = [CInt](repeating: -1, count: DescriptorMessage.maxDescriptors + 1)
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
        return DescriptorMessage(
            bytes: Array(bytes[..<received]),
            first: count > 0 ? OwnedDescriptor(descriptors[0]) : nil,
            others: descriptors[..<Int(count)].dropFirst().map { DescriptorMessage.Handed($0) }
        )
    }

    /// Sends a message and a copy of a userfaultfd, over a Unix socket.
    public func send(_ bytes: [UInt8], with userfaultfd: borrowing Userfaultfd) throws(SystemError) {
        try send(bytes, [userfaultfd.descriptor.raw])
    }

    /// Sends a message and copies of a userfaultfd and a memory file, over a Unix socket.
    public func send(
        _ bytes: [UInt8],
        with userfaultfd: borrowing Userfaultfd,
        _ file: borrowing MemoryFile
    ) throws(SystemError) {
        try send(bytes, [userfaultfd.descriptor.raw, file.descriptor.raw])
    }

    private func send(_ bytes: [UInt8], _ handed: [CInt]) throws(SystemError) {
        do throws(Errno) {
            _ = try kernel(.sendmsg) {
                shim_send_descriptors(descriptor.raw, bytes, bytes.count, handed, CInt(handed.count))
            }
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
        // UFFD_FEATURE_INITIALIZED. Without it the process could ask for features that are not served after the hand-off.
        guard bits & 1 << 31 != 0 else {
            throw HandedDescriptorError(
                reason: "the userfaultfd has no features agreed on yet; call UFFDIO_API before it is handed over"
            )
        }
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
