import CShims
import Glibc
import SystemPackage

extension StreamSocket {
    /// A message and the descriptors that came with it.
    package struct DescriptorMessage: ~Copyable, Sendable {
        /// The bytes of the message.
        package let bytes: [UInt8]
        /// Whether descriptors of the message were lost, because this process or host had too many open.
        package let hasLostDescriptors: Bool
        private let first: OwnedDescriptor?
        private let others: [Handed]

        /// A descriptor as an object, since an array takes no noncopyable values.
        fileprivate final class Handed: Sendable {
            let descriptor: OwnedDescriptor
            init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
        }

        fileprivate init(
            bytes: [UInt8],
            first: consuming OwnedDescriptor?,
            others: [Handed],
            hasLost: Bool
        ) {
            self.bytes = bytes
            hasLostDescriptors = hasLost
            self.first = first
            self.others = others
        }

        /// The number of descriptors that came with the message, counted up to one more than ``maxDescriptors``.
        ///
        /// Descriptors that are not taken are closed with the message.
        package var descriptorCount: Int { first == nil ? 0 : 1 + others.count }

        /// The message and the part that followed it, with the descriptors of both.
        package consuming func followed(by next: consuming DescriptorMessage) -> DescriptorMessage {
            let bytes = bytes + next.bytes
            var others = others
            let hasLost = hasLostDescriptors || next.hasLostDescriptors
            let later = next.others
            let second = next.takeFirst()
            switch consume first {
            case .none:
                return DescriptorMessage(bytes: bytes, first: second, others: later, hasLost: hasLost)
            case .some(let own):
                if let second { others.append(Handed(second)) }
                return DescriptorMessage(bytes: bytes, first: own, others: others + later, hasLost: hasLost)
            }
        }

        private consuming func takeFirst() -> OwnedDescriptor? { first }

        /// Copies of the descriptors, which the caller closes.
        func copies() throws(Errno) -> [CInt] {
            var copies: [CInt] = []
            func copy(_ raw: CInt) throws(Errno) {
                copies.append(try kernel(.fcntl) { orErrno(fcntl(raw, F_DUPFD_CLOEXEC, 0)) })
            }
            switch first {
            case .some(let first): try copy(first.raw)
            case .none: break
            }
            for other in others { try copy(other.descriptor.raw) }
            return copies
        }

        /// The most descriptors that one message may bring.
        package static let maxDescriptors = 16

        /// Maps pages of a memory file that another process fills, for the kernel to write to.
        ///
        /// - Parameters:
        ///   - number: the position of the file's descriptor in the message; the first one is at 0.
        ///   - offset: where the pages begin in the file, in bytes; a multiple of the page size.
        ///   - range: gives the size and the number of the pages; its address does not matter.
        /// - Throws: ``HandedDescriptorError`` if the descriptor is missing, is not a memory file, or does not hold
        ///   these pages.
        package func alias(
            of number: Int,
            from offset: UInt64,
            like range: PageRange
        ) throws(HandedDescriptorError) -> MemoryAlias {
            try use(number) { (file) throws(HandedDescriptorError) in
                try MemoryAlias(of: file, number: number, from: offset, like: range)
            }
        }

        /// Makes a region of a memory file of another process, to read it.
        ///
        /// - Parameters:
        ///   - number: the position of the file's descriptor in the message; the first one is at 0.
        ///   - offset: where the pages begin in the file, in bytes; a multiple of the page size.
        ///   - range: gives the size and the number of the pages; its address does not matter.
        /// - Throws: ``HandedDescriptorError`` if the descriptor is missing, is not a memory file, or does not hold
        ///   these pages.
        package func region(
            of number: Int,
            from offset: UInt64,
            like range: PageRange
        ) throws(HandedDescriptorError) -> FileRegion {
            try use(number) { (file) throws(HandedDescriptorError) in
                try FileRegion(of: file, number: number, from: offset, like: range)
            }
        }

        private func use<Value>(
            _ number: Int,
            _ body: (borrowing OwnedDescriptor) throws(HandedDescriptorError) -> Value
        ) throws(HandedDescriptorError) -> Value {
            switch first {
            case .some(let first) where number == 0: return try body(first)
            default: break
            }
            guard number > 0, number <= others.count else {
                throw HandedDescriptorError(reason: "no descriptor \(number) came with the message")
            }
            return try body(others[number - 1].descriptor)
        }

        /// Identifies the file of a descriptor; two descriptors may stand for the same file.
        ///
        /// - Parameter number: the descriptor's position in the message; the first one is at 0.
        package func identity(of number: Int) throws(HandedDescriptorError) -> FileIdentity {
            try use(number) { (file) throws(HandedDescriptorError) in
                var status = stat()
                guard fstat(file.raw, &status) == 0 else {
                    throw HandedDescriptorError(reason: "descriptor \(number) cannot be inspected")
                }
                // The bits of glibc's dev_t, as gnu_dev_major(3) and gnu_dev_minor(3) take them apart.
                let device = UInt64(status.st_dev)
                return FileIdentity(
                    major: UInt32(truncatingIfNeeded: device >> 8 & 0xfff | device >> 32 & ~0xfff),
                    minor: UInt32(truncatingIfNeeded: device & 0xff | device >> 12 & ~0xff),
                    number: UInt64(status.st_ino)
                )
            }
        }

        /// Copies the userfaultfds that came with the message, whatever their features are.
        ///
        /// - Throws: `SystemError` if this process has no descriptor left.
        package func copyUserfaultfds() throws(SystemError) -> [SharedUserfaultfd] {
            var copies: [SharedUserfaultfd] = []
            switch first {
            case .some(let first): if let copy = try SharedUserfaultfd(copying: first) { copies.append(copy) }
            case .none: break
            }
            for other in others {
                if let copy = try SharedUserfaultfd(copying: other.descriptor) { copies.append(copy) }
            }
            return copies
        }

        /// Takes the first descriptor as the userfaultfd that its sender says it is.
        ///
        /// - Parameter served: features that the userfaultfd may have although they raise events.
        /// - Throws: ``HandedDescriptorError`` if the descriptor is missing, is not a userfaultfd, or has features that
        ///   are not served.
        package consuming func takeUserfaultfd(
            serving served: Userfaultfd.Features = []
        ) throws(HandedDescriptorError) -> Userfaultfd {
            guard let first else { throw HandedDescriptorError(reason: "no descriptor came with the message") }
            return try Userfaultfd(handed: first, serving: served)
        }
    }

    /// The identity of a file, equal for two descriptors of the same file.
    package struct FileIdentity: Hashable, Sendable {
        /// The device's numbers.
        let major: UInt32
        let minor: UInt32
        /// The file's number on the device (inode).
        let number: UInt64
    }

    /// Receives a message of at most `maxBytes` and the descriptors that came with it, over a Unix socket.
    package func receiveDescriptors(maxBytes: Int) throws(SystemError) -> DescriptorMessage {
        var bytes = [UInt8](repeating: 0, count: maxBytes)
        var descriptors = [CInt](repeating: -1, count: DescriptorMessage.maxDescriptors + 1)
        var (count, isCut): (CInt, CInt) = (0, 0)
        let received: Int
        do throws(Errno) {
            received = try kernel(.recvmsg) {
                shim_receive_descriptors(
                    descriptor.raw,
                    &bytes,
                    maxBytes,
                    &descriptors,
                    CInt(descriptors.count),
                    &count,
                    &isCut
                )
            }
        } catch .resourceTemporarilyUnavailable {
            throw SystemError("receive a descriptor from \(peer)", .timedOut)
        } catch {
            throw SystemError("receive a descriptor from \(peer)", error)
        }
        let handed = descriptors[..<Int(count)]
        return DescriptorMessage(
            bytes: Array(bytes[..<received]),
            first: count > 0 ? OwnedDescriptor(descriptors[0]) : nil,
            others: handed.dropFirst().map { DescriptorMessage.Handed(OwnedDescriptor($0)) },
            // A message with more descriptors than there is room for is cut too.
            hasLost: isCut != 0 && handed.count < descriptors.count
        )
    }

    /// Sends a message with a copy of a userfaultfd, over a Unix socket.
    package func send(_ bytes: [UInt8], with userfaultfd: borrowing Userfaultfd) throws(SystemError) {
        try send(bytes, [userfaultfd.descriptor.raw])
    }

    /// Sends a message with copies of a userfaultfd and a memory file, over a Unix socket.
    package func send(
        _ bytes: [UInt8],
        with userfaultfd: borrowing Userfaultfd,
        _ file: borrowing MemoryFile
    ) throws(SystemError) {
        try send(bytes, [userfaultfd.descriptor.raw, file.descriptor.raw])
    }

    /// Sends a message with copies of 1 to 17 descriptors.
    func send(_ bytes: [UInt8], _ handed: [CInt]) throws(SystemError) {
        do throws(Errno) {
            _ = try kernel(.sendmsg) {
                shim_send_descriptors(descriptor.raw, bytes, bytes.count, handed, CInt(handed.count))
            }
        } catch {
            throw SystemError("send descriptors to \(peer)", error)
        }
    }
}

/// A descriptor from another process that is not what the process said it is.
package struct HandedDescriptorError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What is wrong with the descriptor.
    package let reason: String

    /// The reason, in one line.
    package var description: String { reason }
}

/// A userfaultfd as an object, since an array takes no noncopyable values.
package final class SharedUserfaultfd: Sendable {
    package let userfaultfd: Userfaultfd

    package init(_ userfaultfd: consuming Userfaultfd) { self.userfaultfd = userfaultfd }

    /// Copies a descriptor; nil if it is no userfaultfd.
    fileprivate convenience init?(copying descriptor: borrowing OwnedDescriptor) throws(SystemError) {
        guard try Userfaultfd.isUserfaultfd(descriptor) else { return nil }
        let copy: OwnedDescriptor
        do throws(Errno) {
            copy = try descriptor.duplicate()
        } catch {
            throw SystemError("duplicate a userfaultfd", error, advice: "raise `ulimit -n`")
        }
        self.init(Userfaultfd(adopting: copy))
    }
}

extension Userfaultfd {
    /// Whether a descriptor is a userfaultfd.
    ///
    /// - Throws: `SystemError` if this process has no descriptor left to find out.
    static func isUserfaultfd(_ descriptor: borrowing OwnedDescriptor) throws(SystemError) -> Bool {
        try features(of: descriptor) != nil
    }

    /// Features whose events or signals only a handler made for them can serve.
    private static let unserved = Features.events.union(.sigbus)

    /// The features that UFFDIO_API has enabled; nil if the descriptor is no userfaultfd.
    private static func features(of descriptor: borrowing OwnedDescriptor) throws(SystemError) -> Features? {
        // fs/userfaultfd.c prints "API:\t<api>:<features of this context>:<features of the kernel>", hexadecimal.
        let info = try ProcessFile.read("/proc/self/fdinfo/\(descriptor.raw)")
        guard let line = info.split(separator: "\n").first(where: { $0.hasPrefix("API:") }),
            let field = line.split(whereSeparator: { $0 == ":" || $0 == "\t" }).dropFirst(2).first
        else { return nil }
        return UInt64(field, radix: 16).map { Features(rawValue: $0) }
    }

    /// Whether the process whose memory is registered waits for events to be read.
    package var raisesEvents: Bool {
        // A userfaultfd whose features cannot be read counts as one that raises events, which are then awaited.
        guard let features = try? Userfaultfd.features(of: descriptor) else { return true }
        return !features.isDisjoint(with: .events)
    }

    /// Takes over a descriptor that another process says is its userfaultfd, and makes it non-blocking.
    init(
        handed descriptor: consuming OwnedDescriptor,
        serving served: Features = []
    ) throws(HandedDescriptorError) {
        let known: Features?
        do throws(SystemError) {
            known = try Userfaultfd.features(of: descriptor)
        } catch {
            throw HandedDescriptorError(reason: "the descriptor cannot be inspected: \(error)")
        }
        guard let features = known else {
            throw HandedDescriptorError(reason: "the descriptor is no userfaultfd")
        }
        // UFFD_FEATURE_INITIALIZED. Without it, the process could enable features that are not served after the
        // hand-off.
        guard features.rawValue & 1 << 31 != 0 else {
            throw HandedDescriptorError(
                reason: "the userfaultfd is not initialized; call UFFDIO_API before handing it over"
            )
        }
        let unserved = features.intersection(Userfaultfd.unserved.subtracting(served))
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
