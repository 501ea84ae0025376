/// Who carries out the commands of a ``QMPServer``.
public protocol QMPHandler: Sendable {
    /// The commands that ``handle(_:)`` knows, without those that the server answers by itself (`qmp_capabilities`,
    /// `query-commands`, `query-version`). Asked for once, when the server is made.
    var commandNames: [String] { get }

    /// Those of them whose result may be long in coming, as it is up to others. Asked for once, when the server is made.
    ///
    /// One that carries an id, by which its answer is known, holds up no command after it.
    var patientCommands: Set<String> { get }

    /// Carries out one command and returns when its result is known.
    ///
    /// Commands of one client arrive one at a time, except those that it sends out of band or that come after a patient
    /// one; commands of different
    /// clients run at the same time. The command goes on if its client leaves. The server's shutdown cancels the task
    /// and waits for the return, so this must not wait for the server's shutdown.
    ///
    /// - Parameter command: its name is one of ``commandNames``.
    /// - Returns: what the client gets as `return`; an empty object if there is nothing to say.
    /// - Throws: what the client gets as `error`.
    func handle(_ command: QMPCommand) async throws(QMPError) -> JSONValue
}

extension QMPHandler {
    /// None.
    public var patientCommands: Set<String> { [] }
}
