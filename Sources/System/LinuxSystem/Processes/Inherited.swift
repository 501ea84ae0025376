import Glibc

/// The descriptors that this process inherited as a worker, in the order of ``WorkerProcess/Gifts``.
package struct Inherited: ~Copyable {
    static let first = STDERR_FILENO + 1
    private var next = Inherited.first
    /// What a process that a ``ForkServer`` has made was sent, in the order of the gifts; nil in a process that was
    /// started with the descriptors from ``first`` on.
    private var sent: [CInt]?

    /// Begins at the first inherited descriptor.
    ///
    /// Call this once, before the process opens a descriptor that could be mistaken for an inherited one.
    package init() {}

    /// Takes over descriptors that came in a message.
    init(sent: [CInt]) { self.sent = sent }

    deinit {
        for descriptor in sent ?? [] { _ = close(descriptor) }
    }

    private mutating func take() throws(HandedDescriptorError) -> OwnedDescriptor {
        if let sent {
            guard let descriptor = sent.first else {
                throw HandedDescriptorError(reason: "too few descriptors were sent to this process")
            }
            self.sent = Array(sent.dropFirst())
            return OwnedDescriptor(descriptor)
        }
        let descriptor = next
        next += 1
        // A missing descriptor is a mistake on the command line, and not a bug of this program.
        guard fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 else {
            throw HandedDescriptorError(reason: "descriptor \(descriptor) was not given to this process")
        }
        return OwnedDescriptor(descriptor)
    }

    /// Takes the next descriptor as a userfaultfd.
    package mutating func userfaultfd() throws(HandedDescriptorError) -> Userfaultfd {
        try Userfaultfd(handed: take(), serving: .eventRemove)
    }

    /// Takes the next descriptor as a userfaultfd that is only kept open, whatever its features are.
    ///
    /// - Throws: ``HandedDescriptorError`` if the descriptor was not inherited or is no userfaultfd, ``SystemError`` if
    ///   it cannot be inspected.
    package mutating func keptUserfaultfd() throws -> Userfaultfd {
        let descriptor = try take()
        guard try Userfaultfd.isUserfaultfd(descriptor) else {
            throw HandedDescriptorError(reason: "the descriptor is no userfaultfd")
        }
        return Userfaultfd(adopting: descriptor)
    }

    /// Takes the next descriptor as a memory file.
    ///
    /// - Throws: ``HandedDescriptorError`` if the descriptor was not inherited, ``SystemError`` if its size cannot be
    ///   read.
    package mutating func memoryFile() throws -> MemoryFile {
        try MemoryFile(adopting: take())
    }

    /// Takes the next descriptor as the pidfd of a process.
    ///
    /// - Parameter id: the process's number.
    package mutating func process(_ id: Int32) throws(HandedDescriptorError) -> PeerProcess {
        PeerProcess(adopting: try take(), id: id)
    }

    /// Takes the next descriptor as a socket.
    ///
    /// - Parameter peer: the name of the other end, for messages.
    package mutating func socket(to peer: String) throws(HandedDescriptorError) -> StreamSocket {
        StreamSocket(try take(), peer: peer)
    }
}
