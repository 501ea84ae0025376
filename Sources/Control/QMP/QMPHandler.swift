/// A type that carries out the commands of a ``QMPServer``.
package protocol QMPHandler: Sendable {
    /// The commands that ``handle(_:)`` knows, without those that the server answers by itself.
    ///
    /// The server reads the list once, when the server is made. A command that is not described is answered with
    /// `CommandNotFound`, and an argument that is not described is refused, so that `query-commands` and
    /// `query-qmp-schema` tell clients exactly what is there.
    var commands: [QMPCommandDescription] { get }

    /// The events that the server may be asked to ``QMPServer/broadcast(event:data:at:)``.
    var events: [QMPEventDescription] { get }

    /// Carries out one command and returns when its result is known.
    ///
    /// Commands of one client arrive one at a time, except those that the client sends out of band or after a patient
    /// command. Commands of different clients run at the same time. A command continues if its client disconnects. The
    /// server's shutdown cancels the task and waits until the method returns, so the method must not wait for the
    /// shutdown.
    ///
    /// - Parameter command: a command that fits its description, except that the contents of its arrays and objects are
    ///   not checked.
    /// - Returns: the member `return` of the answer; an empty object if there is nothing to report.
    /// - Throws: the member `error` of the answer.
    func handle(_ command: QMPCommand) async throws(QMPError) -> JSONValue
}

extension QMPHandler {
    /// No events.
    package var events: [QMPEventDescription] { [] }

    /// Carries out a client's command if it fits its description.
    ///
    /// - Throws: the member `error` of the answer.
    package func answer(_ command: QMPCommand) async throws(QMPError) -> JSONValue {
        guard let description = commands.first(where: { $0.name == command.name }) else {
            throw .commandNotFound(command.name)
        }
        try description.check(command)
        return try await handle(command)
    }
}
