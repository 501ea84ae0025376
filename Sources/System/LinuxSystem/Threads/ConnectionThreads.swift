import CShims
import Glibc
import Synchronization
import SystemPackage

/// A connection that threads of ``ConnectionThreads`` serve.
package protocol ServedConnection: AnyObject, Sendable {
    /// The connection's socket, which stays open while the connection is waited for.
    var socket: SharedSocket { get }

    /// Serves what has happened on the connection; called once for each ``ConnectionThreads/wait(for:on:)``.
    ///
    /// - Parameter mayWait: whether the call may wait for more bytes. If false, this is the only thread left for all
    ///   connections, and the call serves only what has arrived.
    func serve(mayWait: Bool)
}

/// Threads that serve any number of connections: a few threads wait for all idle connections together (epoll), and a
/// thread that finds one ready serves it by itself.
///
/// The number of threads follows the number of busy connections, and not of idle ones. A connection that becomes ready
/// is served by a thread that was waiting already, without a hop to another thread.
package final class ConnectionThreads: Sendable {
    /// What a connection waits for; the peer's hang-up always counts.
    package struct Wait: OptionSet, Sendable {
        /// The set as bits.
        package let rawValue: UInt8

        package init(rawValue: UInt8) {
            self.rawValue = rawValue
        }

        /// Bytes can be received.
        package static let bytes = Wait(rawValue: 1)
        /// Bytes can be sent.
        package static let room = Wait(rawValue: 2)
    }

    /// The most threads that wait; a thread that has served a connection exits if as many wait already.
    private static let mostWaiting = 4

    private struct State {
        /// The connections, by the numbers under which the kernel reports them.
        var connections: [UInt64: any ServedConnection] = [:]
        /// The threads that wait, or are about to.
        var waiting = 0
        var isStopped = false
    }

    private let name: String
    private let pace: JoinedThread.Pace
    private let isGrowing: Bool
    private let epoll: OwnedDescriptor
    private let stopFlag: EventDescriptor
    private let state = Mutex(State())
    private let threads = ThreadGroup()

    /// Starts the first thread.
    ///
    /// - Parameters:
    ///   - name: the threads' name.
    ///   - pace: the threads' scheduler slice.
    ///   - isGrowing: whether there is a thread for each busy connection. If not, one thread serves all connections,
    ///     and no call of ``ServedConnection/serve(mayWait:)`` may wait.
    package init(name: String, pace: JoinedThread.Pace, isGrowing: Bool) throws(SystemError) {
        self.name = name
        self.pace = pace
        self.isGrowing = isGrowing
        epoll = try attempt("make an epoll instance") { () throws(Errno) in
            OwnedDescriptor(try kernel(.epollCreate) { orErrno(epoll_create1(CInt(EPOLL_CLOEXEC))) })
        }
        stopFlag = try EventDescriptor()
        try control(EPOLL_CTL_ADD, stopFlag.descriptor.raw, EPOLLIN.rawValue, 0)
        try startThread()
    }

    /// Ends the threads, and waits for them; every connection must have been removed.
    ///
    /// No thread of the group may call this.
    package func stop() {
        state.withLock { $0.isStopped = true }
        stopFlag.raise()
        threads.join()
    }

    /// Adds a connection, which is served as soon as bytes arrive.
    package func add(_ connection: any ServedConnection) throws(SystemError) {
        let number = Self.number(of: connection)
        state.withLock { $0.connections[number] = connection }
        do throws(SystemError) {
            try control(EPOLL_CTL_ADD, connection.socket.stream.descriptor.raw, Self.events(of: .bytes), number)
        } catch {
            state.withLock { $0.connections[number] = nil }
            throw error
        }
    }

    /// Serves a connection once more when what it waits for has happened; a connection that was removed stays so.
    package func wait(for wait: Wait, on connection: any ServedConnection) {
        let (raw, number) = (connection.socket.stream.descriptor.raw, Self.number(of: connection))
        let error = state.withLock { state -> SystemError? in
            guard state.connections[number] != nil else { return nil }
            do throws(SystemError) {
                // The thread of a busy connection has taken the descriptor out of the set: see `run`.
                try control(isGrowing ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, raw, Self.events(of: wait), number)
                return nil
            } catch  where error.errno == .fileExists {
                // Another thread has served this connection in between: its number may have been that of an earlier one.
                // The call cannot fail for a descriptor that is in the set.
                try? control(EPOLL_CTL_MOD, raw, Self.events(of: wait), number)
                return nil
            } catch {
                return error
            }
        }
        // The kernel refuses a descriptor only for want of memory. The peer then learns that the connection is over.
        if error != nil { connection.socket.stream.shutdown() }
    }

    /// Removes a connection; a thread that serves it at the moment is not waited for.
    package func remove(_ connection: any ServedConnection) {
        let number = Self.number(of: connection)
        guard state.withLock({ $0.connections.removeValue(forKey: number) }) != nil else { return }
        // The call fails only for a busy connection, whose descriptor is not in the set.
        try? control(EPOLL_CTL_DEL, connection.socket.stream.descriptor.raw, 0, number)
    }

    /// The number of a connection, which no other has while it is in the group.
    private static func number(of connection: any ServedConnection) -> UInt64 {
        UInt64(UInt(bitPattern: ObjectIdentifier(connection)))
    }

    /// The kernel's events for a wait, each reported to one thread, and only once.
    private static func events(of wait: Wait) -> UInt32 {
        // 1 << 30 is EPOLLONESHOT, which the imported enumeration may lack.
        (wait.contains(.bytes) ? EPOLLIN.rawValue : 0) | (wait.contains(.room) ? EPOLLOUT.rawValue : 0) | 1 << 30
    }

    private func control(_ operation: CInt, _ raw: CInt, _ events: UInt32, _ number: UInt64) throws(SystemError) {
        var event = epoll_event(events: events, data: epoll_data_t(u64: number))
        _ = try attempt("wait for a connection") { () throws(Errno) in
            try kernel(.epollControl) { orErrno(epoll_ctl(epoll.raw, operation, raw, &event)) }
        }
    }

    private func startThread() throws(SystemError) {
        state.withLock { $0.waiting += 1 }
        do throws(SystemError) {
            try threads.run(name, pace: pace) { [self] in run() }
        } catch {
            state.withLock { $0.waiting -= 1 }
            throw error
        }
    }

    private func run() {
        repeat {
            let number = next()
            let (connection, isLast, isStopped) = state.withLock { state in
                state.waiting -= 1
                return (state.connections[number], state.waiting == 0, state.isStopped)
            }
            if isStopped { return }
            // A connection that was removed meanwhile is not found.
            guard let connection else { continue }
            if isGrowing {
                // A descriptor in the set, even one that is not waited for, would cost each arrival of bytes a call in
                // the kernel. The call here fails only if the connection was removed meanwhile.
                try? control(EPOLL_CTL_DEL, connection.socket.stream.descriptor.raw, 0, number)
            }
            connection.serve(mayWait: isGrowing && (!isLast || mayAddThread()))
        } while stays()
    }

    /// Whether another thread could be started, which waits while this one serves a connection.
    private func mayAddThread() -> Bool {
        do throws(SystemError) {
            try startThread()
            return true
        } catch {
            // Until another thread waits again, this one serves the connections that are ready in turn.
            return false
        }
    }

    /// Whether this thread, which has served a connection, waits for the next.
    private func stays() -> Bool {
        state.withLock { state in
            guard !state.isStopped, state.waiting < Self.mostWaiting else { return false }
            state.waiting += 1
            return true
        }
    }

    /// Waits until a connection is ready, and returns its number; 0 for the flag that ends the threads.
    private func next() -> UInt64 {
        var event = epoll_event()
        // epoll_wait(2) on descriptors of this object fails only if a signal interrupts it, and is repeated.
        while (try? kernel(.epollWait) { orErrno(epoll_wait(epoll.raw, &event, 1, -1)) }) != 1 {}
        return event.data.u64
    }
}
