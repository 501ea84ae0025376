import Connections
import Guest
import LinuxSystem
import PageProtocol
import Synchronization

/// Sends device states while the workload still runs, so that little is left to send after the stop.
///
/// After the stop only changes are sent, and the connection's congestion window has already grown. Without this, a
/// state of 256 KiB takes five round trips on a connection that has carried little: TCP begins with ten segments (RFC
/// 6928) and doubles them with each round trip.
final class StatesAhead: Sendable {
    private struct Sent {
        var states: [String: [UInt8]] = [:]
        var isGivenUp = false
    }

    /// Changes of at most this many bytes are sent after the stop, since they take one round trip.
    private static let fewBytes = 16 << 10
    /// The number of rounds after which the workload is stopped, however fast its devices change.
    private static let rounds = 4
    /// How long the peer may take to receive all rounds, in nanoseconds.
    private static let time: UInt64 = 30_000_000_000

    private let sent = Mutex(Sent())

    /// Sends the states of all devices that can be saved while running, and then their changes until those are few.
    ///
    /// Blocks until the peer's host has acknowledged the bytes, for 30 s at most.
    ///
    /// - Parameters:
    ///   - devices: the workload's devices.
    ///   - control: the control connection to the destination.
    /// - Throws: why a state cannot be sent ahead. The migration continues, and sends that state after the stop.
    func send(_ devices: DeviceSet, over control: ControlLink) throws {
        let deadline = MonotonicClock.now() + StatesAhead.time
        var last = Int.max
        for _ in 0..<StatesAhead.rounds {
            let saved = try devices.saveAhead()
            let changes = changes(to: saved)
            let byteCount = changes.reduce(0) { $0 + $1.state.count }
            guard !saved.isEmpty, byteCount < last, last == .max || byteCount > StatesAhead.fewBytes else { return }
            last = byteCount
            for frame in try DeviceTransfer.frames(of: changes, ahead: true) { control.send(frame: frame) }
            sent.withLock { sent in for device in saved { sent.states[device.name] = device.state } }
            while !control.isDrained {
                guard MonotonicClock.now() < deadline, !sent.withLock(\.isGivenUp) else { return }
                MonotonicClock.sleep(nanoseconds: 200_000)
            }
        }
    }

    /// Ends ``send(_:over:)`` early, since the workload is not moved any more.
    func giveUp() {
        sent.withLock { $0.isGivenUp = true }
    }

    /// What must be sent of each saved state: a patch, or the whole state if it was not sent ahead.
    func changes(to saved: [DeviceSet.Saved]) -> [DeviceSet.Saved] {
        let states = sent.withLock(\.states)
        return saved.map { device in
            guard let earlier = states[device.name] else { return device }
            return DeviceSet.Saved(name: device.name, state: StatePatch.make(from: earlier, to: device.state))
        }
    }
}
