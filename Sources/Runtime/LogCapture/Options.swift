// SPDX-License-Identifier: Apache-2.0

/// What the query of the `binary://` URI said; containerd hands it over as `key value` arguments in random order.
struct Options {
    /// File to write; older ones get `.1`, `.2` and so on, higher is older.
    var path: String
    /// Size at which a file is put aside.
    var bytesMax: Int
    /// How many files there may be, the current one included.
    var filesMax: Int

    struct Problem: Error { var message: String }

    static func parse(_ arguments: [String]) -> Result<Options, Problem> {
        guard arguments.count % 2 == 0 else { return .failure(Problem(message: "arguments must come as `key value`")) }
        var options = Options(path: "", bytesMax: 10 << 20, filesMax: 3)
        for index in stride(from: 0, to: arguments.count, by: 2) {
            let (key, value) = (arguments[index], arguments[index + 1])
            switch key {
            case "path": options.path = value
            case "max_bytes":
                guard let number = Int(value), number >= 4096 else {
                    return .failure(Problem(message: "max_bytes `\(value)` is not a number of at least 4096"))
                }
                options.bytesMax = number
            case "files":
                guard let number = Int(value), (1...100).contains(number) else {
                    return .failure(Problem(message: "files `\(value)` is not a number from 1 to 100"))
                }
                options.filesMax = number
            default: return .failure(Problem(message: "unknown key `\(key)`: path, max_bytes and files are known"))
            }
        }
        guard options.path.hasPrefix("/") else {
            return .failure(Problem(message: "path `\(options.path)` is not absolute"))
        }
        return .success(options)
    }
}
