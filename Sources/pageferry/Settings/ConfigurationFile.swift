import ArgumentParser
import LinuxSystem
import Yams

/// A configuration file in YAML: a section for each command, and the section `all`, which have options as their keys.
struct ConfigurationFile: Sendable {
    /// The value of one key.
    struct Entry: Sendable {
        /// One text for each element of a list; `true` or `false` for an option without a value.
        let values: [String]
        let line: Int
    }

    /// The name of the section whose options count for every command that has them.
    static let all = "all"
    private static let maxBytes = 1 << 20

    let path: String
    /// The entries of each section, by their key.
    private(set) var sections: [String: [String: Entry]] = [:]

    /// Reads a file, and checks its sections, its keys, and the types of its values.
    ///
    /// The values themselves are checked by the command that gets them.
    ///
    /// - Parameters:
    ///   - path: the path of the file.
    ///   - options: the options of each command that the file may configure, by the command's name.
    /// - Throws: `ValidationError` if the file cannot be read, or with the line that is wrong.
    init(_ path: String, for options: [String: [CommandOption]]) throws {
        self.path = path
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try WholeFile.read(path, atMost: ConfigurationFile.maxBytes)
        } catch {
            throw ValidationError("\(error)")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw ValidationError("\(path) is not text in UTF-8")
        }
        guard let root = try document(text) else { return }
        guard let mapping = root.mapping else {
            throw wrong(root, "the file has no sections; write one such as 'attach:', and its options indented below")
        }
        for (key, value) in mapping {
            let name = key.scalar?.string ?? ""
            guard name == ConfigurationFile.all || options[name] != nil else {
                let known = [ConfigurationFile.all] + options.keys.sorted()
                throw wrong(
                    key,
                    "unknown section '\(name)'\(Suggestion.of(name, among: known)); the sections are "
                        + known.joined(separator: ", ")
                )
            }
            sections[name] = try section(name, key, value, options)
        }
    }

    private func section(
        _ name: String,
        _ key: Node,
        _ value: Node,
        _ options: [String: [CommandOption]]
    ) throws -> [String: Entry] {
        if value.isEmpty { return [:] }
        guard let mapping = value.mapping else {
            throw wrong(key, "'\(name)' is a section and takes no value; write its options indented below it")
        }
        let known = options[name] ?? options.sorted { $0.key < $1.key }.flatMap(\.value)
        var entries: [String: Entry] = [:]
        for (key, value) in mapping {
            let word = key.scalar?.string ?? ""
            let meant = known.filter { $0.isConfigurable && $0.name == word }
            guard let option = meant.first else {
                let names = Set(known.filter(\.isConfigurable).map(\.name)).sorted()
                let allowed = name == ConfigurationFile.all ? "" : "; allowed are \(names.joined(separator: ", "))"
                throw wrong(key, "unknown key '\(word)' in '\(name)'\(remedy(word, known, names))\(allowed)")
            }
            entries[word] = Entry(values: try values(of: option, value, "\(name).\(word)", key), line: key.line)
        }
        return entries
    }

    private func remedy(_ word: String, _ known: [CommandOption], _ names: [String]) -> String {
        if word.hasPrefix("no-"), names.contains(String(word.dropFirst(3))) {
            return " (write '\(word.dropFirst(3)): false')"
        }
        if word.hasPrefix("--") { return " (write it without hyphens before it)" }
        return Suggestion.of(word, among: names)
    }

    private func values(of option: CommandOption, _ value: Node, _ name: String, _ key: Node) throws -> [String] {
        if value.isEmpty { throw wrong(key, "'\(name)' has no value; write one, or drop the key") }
        switch option.kind {
        case .flag, .invertible:
            guard let text = value.scalar?.string, ["true", "false"].contains(text) else {
                throw wrong(value, "'\(name)' takes true or false, not \(value.shown)")
            }
            return [text]
        case .value, .optionalValue:
            guard let text = value.scalar?.string else {
                throw wrong(value, "'\(name)' takes one value, not \(value.shown)")
            }
            return [text]
        case .list:
            if let text = value.scalar?.string { return [text] }
            guard let sequence = value.sequence else {
                throw wrong(value, "'\(name)' takes a value or a list of values, not \(value.shown)")
            }
            return try sequence.map { element in
                guard let text = element.scalar?.string, !element.isEmpty else {
                    throw wrong(element, "an element of '\(name)' takes one value, not \(element.shown)")
                }
                return text
            }
        }
    }

    private func wrong(_ node: Node, _ what: String) -> ValidationError {
        ValidationError("\(path):\(node.line): \(what)")
    }

    private func document(_ text: String) throws -> Node? {
        do {
            return try Parser(yaml: text, encoding: .utf8).singleRoot()
        } catch let error as YamlError {
            throw ValidationError(describe(error, in: text))
        }
    }

    private func describe(_ error: YamlError, in text: String) -> String {
        switch error {
        case .duplicatedKeysInMapping(let keys, let context):
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            let first = context.mark.line
            // The parser tells the first place only. The second has the same indentation.
            let key = keys.first ?? ""
            let again = lines.indices.first { place in
                let words = lines[place].dropFirst(max(0, context.mark.column - 1))
                return place >= first && lines[place].count - words.count == context.mark.column - 1
                    && words.drop { "\"'".contains($0) }.hasPrefix(key)
            }
            let line = again.map { $0 + 1 } ?? first
            return "\(path):\(line): '\(key)' is given twice, first in line \(first); drop one of the two"
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            return "\(path):\(mark.line): this is not YAML: \(problem)"
        case .reader(let problem, let offset, _, let text):
            let line = text.prefix(offset ?? 0).count { $0.isNewline } + 1
            return "\(path):\(line): this is not YAML: \(problem)"
        case .no, .memory, .writer, .emitter, .representer, .dataCouldNotBeDecoded:
            return "\(path): this is not YAML: \(error)"
        }
    }
}

extension Node {
    fileprivate var line: Int { mark?.line ?? 1 }

    /// Whether the place of the value is empty.
    fileprivate var isEmpty: Bool {
        guard let scalar else { return false }
        return scalar.style == .plain && ["", "~", "null"].contains(scalar.string)
    }

    /// The value, in the words of an error.
    fileprivate var shown: String {
        if let scalar { return "'\(scalar.string)'" }
        return sequence == nil ? "further keys" : "a list"
    }
}
