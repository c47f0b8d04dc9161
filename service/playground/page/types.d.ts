/** The words of the page's scripts, for the type checker alone. */

type ItemId = string | number;
type Side = "a" | "b";
type Compare = "off" | "history" | "version";

/** What the page is about, as its address says it. */
interface State {
  model: string; // empty: the default
  version: string; // empty: the one that answers by default
  items: ItemId[]; // the history, oldest to newest
  compare: Compare;
  others: ItemId[]; // the second history
  against: string; // the second version
  without: number | null; // the click to leave out
  chosen: ItemId | null; // the recommended item to explain
  unseen: boolean; // recommend no item of the history
  padding: number; // positions that a longer history of the batch would fill
}

interface Question {
  name: string; // what the page calls it
  path: string;
  body?: object; // without one it is a GET
}

interface Answer {
  status: "loading" | "done" | "failed";
  value?: any; // only when done
  error?: import("./api.js").Failure; // of the last try, until the next one is answered
}

interface Entry extends Answer {
  question: string; // as JSON
  stop: AbortController;
  timer?: ReturnType<typeof setTimeout>;
}

interface Asked {
  model: string;
  version: string;
  items: ItemId[];
}

/** What people call an item. */
interface Title {
  name: string;
  link: string | null;
  known: boolean;
}
type TitleOf = (item: ItemId) => Title;

interface Example {
  name: string;
  history: ItemId[];
}

interface Column {
  name: string;
  kind?: "start" | "padding";
}

/** What the page knows of one editor beside the history. */
interface Desk {
  at: number; // the click that the buttons are for
  search: string | null; // what is typed; null while the box is closed
  option: number; // of the search, that Enter takes
  eager: boolean; // Enter was pressed before the items were there
  typed: string | null; // the text of the box of ids, while it has the focus
  drag: { from: number; to: number; x: number; y: number; moving: boolean } | null;
}

interface EditorProps {
  side: Side;
  heading: string;
  items: ItemId[];
  desk: Desk;
  setDesk: (changes: Partial<Desk>) => void;
  setItems: (items: ItemId[], at?: number, focus?: boolean) => void;
  titleOf: TitleOf;
  found: Answer;
  examples: Example[];
  maxLength: number;
  padding: number;
  shares: number[] | null; // the pooled weight of each used click
  without: number | null;
  setWithout: ((at: number | null) => void) | null;
}

interface Drawing {
  value: any;
  padding: number;
  titleOf: TitleOf;
  of: string; // whose, where there are two
}

type Sides = Partial<Record<Side, Asked>>;
