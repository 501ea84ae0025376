import Firecracker
import LinuxSystem
import Synchronization

/// A Firecracker process of this host that one agent, and no other, stops and starts.
final class FirecrackerHost: Sendable {
    let api: FirecrackerAPI
    let watched: WatchedProcess
    /// Two agents would move the same microVM to two places.
    private let lock: FileLock
    private let watch = ThreadGroup()

    /// Finds the process that listens at an API socket.
    init(at socketPath: String) throws {
        api = FirecrackerAPI(socketPath: socketPath)
        let socket = try StreamSocket(connectingTo: SocketAddress("unix:\(socketPath)"))
        watched = try WatchedProcess(PeerProcess(peerOf: socket), name: "the microVM at \(socketPath)")
        let lockPath = "\(socketPath).lock"
        do {
            _ = try OutputFile(path: lockPath)
            lock = try FileLock(lockPath)
        } catch {
            throw MicroVMError("an agent must have \(watched.name) for itself: \(error)")
        }
    }

    deinit {
        watched.leave()
        watch.join()
    }

    /// How it is called in messages.
    var name: String { watched.name }

    /// Begins to look whether the process ends.
    func watchEnd() throws(SystemError) {
        guard watch.count == 0 else { return }
        try watch.run("microvm") { [watched] in watched.waitForEnd() }
    }

    /// Ends the process at once.
    func kill() {
        // Only a process of another user refuses, which would not have taken the snapshot from this one.
        try? watched.process.send(.kill)
    }

    private static let pause: UInt64 = 50_000_000

    /// Lets the microVM run.
    ///
    /// - Throws: if it provably executed nothing. Where Firecracker did not answer, this asks until it does, or has ended:
    ///   then it may have run.
    func resume() throws {
        guard !watched.process.hasEnded else { throw MicroVMError("\(name) has ended") }
        do {
            try api.resume()
        } catch  where error.status != nil {
            throw error
        } catch {
            var pauses = 0
            while !watched.process.hasEnded {
                // Requests are answered in the order they came: the second answer comes after the request has been.
                switch (try? api.instance())?.state {
                case .running: return
                case .paused where pauses > 0: throw error
                case .paused: pauses += 1
                case .notStarted, nil: MonotonicClock.sleep(nanoseconds: FirecrackerHost.pause)
                }
            }
        }
    }

    /// Stops the microVM's processors.
    ///
    /// - Throws: if they run on.
    func pause() throws(FirecrackerError) {
        do {
            try api.pause()
        } catch {
            // Answered by nobody, it may be carried out later; what comes behind it ends that.
            if error.status == nil { try? api.resume() }
            throw error
        }
    }
}
