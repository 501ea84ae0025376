import LinuxSystem
import PageProtocol

/// The urgent and bulk connections to one source.
final class LaneSockets: Sendable {
    let urgent: StreamSocket
    let bulk: StreamSocket

    init(urgent: consuming StreamSocket, bulk: consuming StreamSocket) {
        self.urgent = urgent
        self.bulk = bulk
    }

    func shutdown() {
        urgent.shutdown()
        bulk.shutdown()
    }

    var peer: String { urgent.peer }

    @inline(__always)
    func receive(on lane: Lane, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        switch lane {
        case .urgent: try urgent.receive(into: buffer)
        case .bulk: try bulk.receive(into: buffer)
        }
    }

    /// Receives what has arrived, without waiting for it; nil if nothing has.
    @inline(__always)
    func receiveArrived(on lane: Lane, into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        switch lane {
        case .urgent: try urgent.receiveArrived(into: buffer)
        case .bulk: try bulk.receiveArrived(into: buffer)
        }
    }

    /// The same into memory of another process.
    @inline(__always)
    func receiveArrived(on lane: Lane, into alias: MemoryAlias, _ bytes: Range<Int>) throws(SystemError) -> Int? {
        switch lane {
        case .urgent: try urgent.receiveArrived(into: alias, bytes)
        case .bulk: try bulk.receiveArrived(into: alias, bytes)
        }
    }
}
