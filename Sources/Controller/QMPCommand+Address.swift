import LinuxSystem
import QMP

extension QMPCommand {
    /// Where a migration goes or comes from: `uri`, or `channels` with one main channel over a socket.
    ///
    /// - Throws: `QMPError` for arguments of another shape, `SocketAddressError` for a text that is no address.
    func migrationAddress() throws -> SocketAddress {
        guard let channels = try arrayIfPresent("channels") else { return try SocketAddress(string("uri")) }
        guard arguments["uri"] == nil else {
            throw QMPError.generic("'uri' and 'channels' arguments are mutually exclusive")
        }
        guard channels.count == 1, channels[0]["channel-type"] == "main", let address = channels[0]["addr"],
            address["transport"] == "socket"
        else {
            throw QMPError.generic("Parameter 'channels' accepts one channel of type 'main' over a socket")
        }
        switch (address["type"], address["host"]?.string, address["port"]?.string, address["path"]?.string) {
        case ("inet", let host?, let port?, nil):
            return try SocketAddress(host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)")
        case ("unix", nil, nil, let path?):
            return try SocketAddress("unix:\(path)")
        default:
            throw QMPError.generic("Parameter 'addr' expects an 'inet' socket's host and port, or a 'unix' one's path")
        }
    }
}
