import ArgumentParser
import Logging

/// Reads the configuration again on SIGHUP.
///
/// Only the log level takes effect in a process that runs. For every other option that has changed, a line says that
/// the command must be restarted.
enum Reload {
    /// Makes what a command does on SIGHUP; nil if the command takes no configuration.
    ///
    /// - Parameters:
    ///   - logger: receives what has changed.
    ///   - onLevel: called with the new log level.
    static func handler(
        _ logger: Logger,
        _ onLevel: @escaping @Sendable (Logger.Level) -> Void = { _ in }
    ) -> (@Sendable () -> Void)? {
        guard Invocation.isConfigurable(Invocation.current.given) else { return nil }
        return {
            Service.reload(logger) {
                do {
                    let next = try reload()
                    LineLog.setLevel(next.level)
                    onLevel(next.level)
                    logger.notice("SIGHUP: \(next.words)")
                } catch {
                    logger.error("SIGHUP: the configuration stays as it is: \(Pageferry.message(for: error))")
                }
            }
        }
    }

    private static func unconfigured() throws -> Invocation {
        let given = Invocation.current.given
        return try Invocation(given + ["--config", ConfigurationOptions.none], [:], showsAll: true)
    }

    /// Reads the configuration, and returns the log level and a line about what has changed.
    private static func reload() throws -> (level: Logger.Level, words: String) {
        // The settings of a command line that no source has completed are not kept.
        let before = try Invocation.current.settings.isEmpty ? unconfigured() : Invocation.current
        let next = try Invocation(Invocation.current.given, Invocation.current.variables, showsAll: true)
        let text = next.setting("log-level")?.values.last ?? "\(Logger.Level.notice)"
        guard let level = Logger.Level(rawValue: text) else {
            let source = next.setting("log-level").map { ", \($0.source)" } ?? ""
            let levels = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
            throw Failure("'\(text)' is no log level\(source): write one of \(levels)")
        }
        let changed = next.settings.filter { setting in
            setting.option.name != "log-level" && setting.values != before.setting(setting.option.name)?.values ?? []
        }
        let from = next.file.map { "\($0) was read again" } ?? "there is no configuration file"
        let restart =
            changed.isEmpty
            ? "" : "; restart for the changes of \(changed.map { "--\($0.option.name)" }.joined(separator: ", "))"
        return (level, "\(from), and the log level is \(level)\(restart)")
    }
}
