import Foundation
import LinuxSystem
import Synchronization

/// Somebody else who wants a disk image, and has it as soon as it is free.
final class DiskTaker: Sendable {
    private struct State: ~Copyable {
        var isWanted = true
        var lock: FileLock?
    }

    private let state = Mutex(State())

    /// Waits for the image, and locks it.
    func take(_ path: String) {
        Thread.detachNewThread { [self] in
            while !tryToTake(path) { usleep(100) }
        }
    }

    /// Whether nothing is left to be tried.
    private func tryToTake(_ path: String) -> Bool {
        state.withLock { state in
            guard state.isWanted else { return true }
            // Somebody else has it: that is what is waited for.
            state.lock = try? FileLock(path)
            return state.lock != nil
        }
    }

    /// Gives it back, and wants it no more.
    func free() {
        state.withLock { state in
            state.isWanted = false
            state.lock = nil
        }
    }
}
