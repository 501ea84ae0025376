/// What a misspelled word may mean.
enum Suggestion {
    /// Returns the end of an error message, such as ` (did you mean 'migrate'?)`; empty if no known word is similar.
    static func of(_ word: String, among known: [String]) -> String {
        // An abbreviation, such as --src, has some of the letters of the whole word.
        let whole = known.filter { $0.hasPrefix(word.prefix(3)) && isAbbreviation(word, of: $0) }.min {
            $0.count < $1.count
        }
        if let whole, word.count > 4 { return " (did you mean '\(whole)'?)" }
        let near = known.map { (name: $0, distance: distance(word, $0)) }.min { $0.distance < $1.distance }
        guard let near, near.distance <= max(2, word.count / 3) else { return "" }
        return " (did you mean '\(near.name)'?)"
    }

    /// Whether a word has only letters of another one, in their order.
    private static func isAbbreviation(_ word: String, of whole: String) -> Bool {
        var rest = whole[...]
        for letter in word {
            guard let place = rest.firstIndex(of: letter) else { return false }
            rest = rest[rest.index(after: place)...]
        }
        return true
    }

    /// Returns the edit distance of two words; exchanging two adjacent letters counts as one edit.
    private static func distance(_ one: String, _ other: String) -> Int {
        let (one, other) = (Array(one), Array(other))
        var rows = [Array(0...other.count)]
        for (i, letter) in one.enumerated() {
            var row = [i + 1]
            for (j, wanted) in other.enumerated() {
                var least = min(rows[i][j] + (letter == wanted ? 0 : 1), rows[i][j + 1] + 1, row[j] + 1)
                if i > 0, j > 0, letter == other[j - 1], one[i - 1] == wanted {
                    least = min(least, rows[i - 1][j - 1] + 1)
                }
                row.append(least)
            }
            rows.append(row)
        }
        return rows[one.count][other.count]
    }
}
