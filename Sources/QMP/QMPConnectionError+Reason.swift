internal import NIOCore
internal import NIOPosix
internal import SystemPackage

extension QMPConnectionError {
    /// What an error of the network stack means, in words.
    static func reason(of error: any Error) -> String {
        switch error {
        case let error as IOError:
            return Errno(rawValue: error.errnoCode).description
        case let error as NIOConnectionError:
            // A name may have several addresses; that of the first says enough.
            if let failure = error.connectionErrors.first { return reason(of: failure.error) }
            return "the host name cannot be resolved"
        case ChannelError.connectTimeout, ChannelError.connectPending:
            return "no connection in time"
        case is SocketAddressError:
            return "the host name cannot be resolved"
        default:
            return String(describing: error)
        }
    }
}
