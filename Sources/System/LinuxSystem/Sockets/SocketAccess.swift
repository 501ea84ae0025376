/// Who may connect to a Unix socket: the owner and the mode of its file.
package struct SocketAccess: Hashable, Sendable {
    /// A user and a group, by number.
    package struct Owner: Hashable, Sendable {
        package let user: UInt32
        package let group: UInt32

        package init(user: UInt32, group: UInt32) {
            self.user = user
            self.group = group
        }
    }

    /// The owner of the socket's file; nil for the user and the group of this process.
    package let owner: Owner?
    /// The mode of the socket's file, of bits in 0777; to connect, a process needs the write bit.
    package let mode: UInt32

    package init(owner: Owner? = nil, mode: UInt32 = 0o600) {
        self.owner = owner
        self.mode = mode & 0o777
    }

    /// Only the user of this process may connect.
    package static let ownUser = SocketAccess()
}
