import ArgumentParser

/// The option of every command that names its configuration file.
struct ConfigurationOptions: ParsableArguments, Encodable {
    /// The names of these options.
    static let names: Set = ["config", "only-arguments"]
    /// The file that is read if it is there.
    static let usualFile = "/etc/pageferry/config.yaml"
    /// The variable that names the file.
    static let variable = "PAGEFERRY_CONFIG"
    /// The value that stands for no file.
    static let none = "none"
    /// An option that no command has: neither a file nor the environment is read.
    static let onlyArguments = "--only-arguments"

    // Read by `Invocation`, before the parser reads the options.
    @Option(
        help: ArgumentHelp(
            "Take options that are not given here, or by the environment, from this file; none: from no file (default: "
                + "\(usualFile), if it is there).",
            valueName: "file"
        ),
        completion: .file()
    )
    var config: String?
}
