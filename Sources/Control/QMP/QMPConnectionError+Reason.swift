internal import NIOCore
internal import NIOPosix
internal import SystemPackage

internal import enum LinuxSystem.SocketAddress

extension QMPConnectionError {
    /// Describes an error of the network stack in words.
    static func reason(of error: any Error) -> String {
        switch error {
        case let error as IOError:
            return Errno(rawValue: error.errnoCode).description
        case let error as NIOConnectionError:
            // A host name may have several addresses; the error of the first address is reported.
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

    /// Advice for an operator who cannot reach a server, if there is any.
    static func advice(on error: any Error, at address: SocketAddress) -> String? {
        switch error {
        case let error as IOError:
            switch (Errno(rawValue: error.errnoCode), address) {
            case (.noSuchFileOrDirectory, .unix), (.connectionRefused, .unix):
                "check the path, and that the agent runs"
            case (.permissionDenied, .unix): "run as the agent's user, or as root"
            case (_, .tcp): "check the address, and that the agent runs"
            case (_, .unix): nil
            }
        case let error as NIOConnectionError:
            error.connectionErrors.first.flatMap { advice(on: $0.error, at: address) } ?? "check the host's name"
        default: nil
        }
    }
}
